"""/openapi.json: the API as OpenAPI 3.1, generated from the routes, the Structs that are parsed and served, the errors and the
headers. A test calls every route of a running gateway, and checks each reply and each header against it."""
