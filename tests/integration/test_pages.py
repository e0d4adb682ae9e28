"""What a browser gets: a page of all routes that needs no network, and headers that let it do nothing else."""

from __future__ import annotations

import re

import httpx2
import pytest


def test_the_page_of_all_routes_is_served_with_all_that_it_needs(client: httpx2.Client) -> None:
    page = client.get("/docs", follow_redirects=True)
    assert page.status_code == 200
    assert "script-src" not in page.headers["content-security-policy"]
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    names = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"swagger-ui-bundle.js", "swagger-ui.css", "page.js"} <= set(names)
    for name in names:
        assert "//" not in name, "an asset from elsewhere needs a network"
        assert client.get(f"/docs/{name}").status_code == 200
    assert client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/nowhere", "/docs/"])
def test_every_answer_tells_browsers_to_guess_and_frame_nothing(client: httpx2.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "no-cache" in headers["cache-control"]
