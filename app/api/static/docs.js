// Swagger UI over our own OpenAPI document.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null, // it would ask a foreign host
});
