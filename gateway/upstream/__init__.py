"""Other servers as embedders: any OpenAI-compatible one, Ollama, text-embeddings-inference. Knows no model of this machine.

The road of one request: `embedder` estimates its tokens (`estimate`); `splitter` cuts it into parts (`split`) by what one may hold
(`request_limits`), and finds out why one was refused (`diagnosis`, by what `refusal` reads); `client` puts each into the upstream's
own words (`dialect`, and its rows `openai`, `ollama`, `tei`). `dispatch` sends it to one of its addresses
(`endpoint`, guarded by a `breaker`) over `transport`, and once more if that may help (`retry_budget`). What comes back is checked
(`validation`); what goes wrong becomes an error of ours in `failures` and nowhere else, and of a server's words only what
`secret_filter` lets through is told.
"""
