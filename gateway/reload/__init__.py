"""One configuration after another while the process runs: what changed, what is built anew, and the swap between two requests."""
