// Shows the OpenAPI document with Swagger UI, which comes from its wheel.
const element = document.getElementById("swagger-ui");
window.SwaggerUIBundle({
  url: element.dataset.document,
  domNode: element,
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  presets: [window.SwaggerUIBundle.presets.apis],
});
