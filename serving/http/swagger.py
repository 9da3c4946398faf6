"""The page at `/`: Swagger UI from BentoML's own assets, without the trackers of BentoML's own page."""

SWAGGER_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Model server</title>
<link rel="stylesheet" href="static_content/swagger-ui.css">
<link rel="icon" type="image/png" href="static_content/favicon-light-32x32.png">
</head>
<body>
<p style="margin: 12px 20px 0; font-family: sans-serif"><a href="dashboard">status page</a></p>
<div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({url: "docs.json", dom_id: "#swagger-ui", deepLinking: true, tryItOutEnabled: true});
</script>
</body>
</html>
"""
