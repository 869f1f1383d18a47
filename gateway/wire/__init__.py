"""Wire formats: parses requests into one shape, and encodes vectors, scores and tokens as responses. Knows no model and no server.

request, response    POST /v1/embeddings
rerank               POST /v1/rerank: rerank_documents, rerank_fields, rerank_response
tokenize             POST /v1/tokenize
cohere, ollama, tei  other servers' formats, each with the files that begin with its name
foreign_fields       other servers' fields in the body of /v1/embeddings
json_body            bytes to JSON, and its errors in the contract's words; input_count bounds arrays before they are parsed
token_ids            ids of cl100k_base to texts
"""
