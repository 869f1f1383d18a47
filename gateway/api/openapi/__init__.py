"""/openapi.json: the API as OpenAPI 3.1, made of what there is: the routes, the Structs that are parsed and served, the errors and
the headers. A test asks every route of a running gateway, and holds each reply and each header against it."""
