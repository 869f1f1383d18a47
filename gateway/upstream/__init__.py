"""Other servers as embedders and rerankers: OpenAI-compatible ones, Ollama, TEI, Cohere. Knows no model of this machine.

`embedder` estimates a request's tokens (`estimate`). `splitter` cuts it into parts (`parts`) that fit the upstream's limits
(`request_limits`), and finds out why a part was refused (`bisection`, by what `refusal` reads). `client` renders each part in the
upstream's protocol (`dialect`: `openai`, `ollama`, `tei`, or the form of `rerank` that `rerank_api` found). `dispatch` sends it to
one endpoint (`load_balancing`, with a `breaker`) over `transport`, and once more if that may help (`retry_budget`). `validation`
checks the reply. `failures` alone maps failures to errors of ours, and repeats only those words of a server that `secret_filter`
passes.
"""
