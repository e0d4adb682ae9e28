// Swagger UI 5.35.0 (Apache-2.0, LICENSE and NOTICE beside it), served from here: the page needs no network.
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "../openapi.json",
    dom_id: "#routes",
    deepLinking: true,
    persistAuthorization: false,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
});
