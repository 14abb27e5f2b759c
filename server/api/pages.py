"""The page that shows the API to people."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

SCRIPTS = "https://cdn.jsdelivr.net"
ICON = "https://fastapi.tiangolo.com"

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def show_docs(request: Request) -> HTMLResponse:
    """Show the API in Swagger UI, whose scripts the browser loads from jsDelivr."""
    app = request.app
    page = get_swagger_ui_html(openapi_url=app.openapi_url, title=app.title)
    inline = re.findall(r"<script>(.*?)</script>", bytes(page.body).decode(), re.DOTALL)
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in inline)
    page.headers["Content-Security-Policy"] = "; ".join(
        [
            "default-src 'none'",
            f"script-src {SCRIPTS} {hashes}",
            f"style-src {SCRIPTS} 'unsafe-inline'",  # Swagger UI styles its elements one by one.
            f"img-src 'self' {ICON} data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return page


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
