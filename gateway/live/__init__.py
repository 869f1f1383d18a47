"""One configuration for another while requests are served. Knows no part that is built from one; `app` builds them."""
