// Swagger UI for the OpenAPI document of this service, with the API key that was entered on the page in this tab.

const key = sessionStorage.getItem("anomaly-api-key"); // as in page/service/api_key.js
const UNAUTHORIZED = 401;

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null, // the default sends the document's URL to an external validator
  requestInterceptor: (request) => {
    // The service compares keys as UTF-8; fetch sends each character of a header as one byte.
    if (key !== null) request.headers["X-API-Key"] ??= String.fromCharCode(...new TextEncoder().encode(key));
    return request;
  },
  responseInterceptor: (response) => {
    const isRefused = response.status === UNAUTHORIZED && response.url.endsWith("/openapi.json");
    if (isRefused) document.getElementById("key-needed").hidden = false;
    return response;
  },
});
