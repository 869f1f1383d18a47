"""Other servers as embedders: any OpenAI-compatible one, Ollama, text-embeddings-inference. Knows no model of this machine.

The road of one request: `remote` estimates its tokens (`estimate`); `speaker` cuts it into parts (`split`) and puts each into the
upstream's own words (`dialect`, and its rows `openai`, `ollama`, `tei`). `exchange` sends it to one of its addresses
(`endpoint`, guarded by a `breaker`) over `connection`, and once more if that may help (`retry`). What comes back is checked
(`reading`); what goes wrong becomes an error of ours in `failures` and nowhere else.
"""
