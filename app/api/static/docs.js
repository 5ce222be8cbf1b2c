// Swagger UI for the OpenAPI document of this service.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null, // the default sends the document's URL to an external validator
});
