"""What mt-photos-ai's API refuses: those without the key, and what cannot be read; each with a true status and the old
body.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest

from errors import ErrorCode, ServiceError
from tests.compat.mtphotos.service import KEY, PICTURE_ROUTES, Service, picture

OPEN = [("GET", "/"), ("GET", "/ping"), ("POST", "/check"), ("GET", "/face/check")]
CLOSED = [*PICTURE_ROUTES, "/clip/txt", "/restart", "/restart_v2"]


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says how large it is, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


class TestKey:
    @pytest.mark.parametrize(("method", "path"), OPEN)
    @pytest.mark.parametrize("key", [None, "s3cret"])
    def test_four_routes_are_open_to_all(self, method: str, path: str, key: str | None) -> None:
        assert Service(api_auth_key=key).ask(method, path, {}).status_code == 200

    @pytest.mark.parametrize("path", CLOSED)
    def test_the_others_want_the_key(self, path: str) -> None:
        service = Service()
        for headers in ({}, {"api-key": "mt_photos_ai_extra"}, {"x-auth-token": "wrong"}):
            response = service.upload(path, picture(), headers)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert response.json() == {"result": [], "msg": response.json()["msg"]}
        assert service.runners.jobs == []

    @pytest.mark.parametrize("path", CLOSED)
    def test_without_a_key_set_they_say_which_setting_to_set(self, path: str) -> None:
        service = Service(api_auth_key=None)
        for headers in ({}, {"api-key": ""}, {"api-key": "mt_photos_ai_extra"}, {"api-key": "None"}):
            response = service.upload(path, picture(), headers)
            assert response.status_code == 403
            assert "API_AUTH_KEY" in response.json()["msg"]
        assert service.runners.jobs == []

    @pytest.mark.parametrize("headers", [{"x-auth-token": "s3cret"}, {"authorization": "Bearer s3cret"}])
    def test_other_headers_carry_it_as_well(self, headers: dict[str, str]) -> None:
        assert Service().upload("/ocr", picture(), headers).status_code == 200

    def test_nothing_of_the_body_is_read_for_those_without_it(self) -> None:
        service = Service(max_body_bytes=10)
        assert service.upload("/ocr", b"x" * 1000, {}).status_code == 401
        assert service.upload("/ocr", b"x" * 1000).status_code == 413

    def test_immichs_route_needs_none(self) -> None:
        assert (
            Service().ask("POST", "/predict", {}, files={"entries": (None, "{}"), "text": (None, "dog")}).status_code
            == 200
        )


class TestErrors:
    """A defect of the old service: it answered 200 to all that failed, and "no text" was stored for ever."""

    @pytest.mark.parametrize("path", PICTURE_ROUTES)
    @pytest.mark.parametrize("data", [b"", b"not a picture", picture()[:20]], ids=["empty", "text", "cut"])
    def test_what_is_no_picture_is_415(self, path: str, data: bytes) -> None:
        service = Service()
        response = service.upload(path, data)
        assert response.status_code == 415
        assert response.json()["result"] == []
        assert len(response.json()["msg"]) > 20
        assert service.runners.jobs == []

    @pytest.mark.parametrize("path", PICTURE_ROUTES)
    @pytest.mark.parametrize("size", [(10_001, 1), (1, 10_001), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
    def test_sides_over_10000_are_refused_by_the_header_in_the_old_words(
        self, path: str, size: tuple[int, int]
    ) -> None:
        service = Service()
        response = service.upload(path, png_header(*size))
        assert (response.status_code, response.text) == (413, '{"result":[],"msg":"height or width out of range"}')
        assert service.runners.jobs == []

    def test_sides_of_10000_are_answered(self) -> None:
        assert Service().upload("/ocr", png_header(10_000, 10_000)).status_code == 200

    def test_more_pixels_than_are_decoded_are_refused_with_the_setting_to_raise(self) -> None:
        service = Service(max_picture_pixels=1000)
        response = service.upload("/ocr", picture(100, 50))
        assert response.status_code == 413
        assert "MAX_PICTURE_PIXELS" in response.json()["msg"]
        assert service.runners.jobs == []

    @pytest.mark.parametrize("path", PICTURE_ROUTES)
    def test_a_body_without_the_file_is_400_and_one_that_is_no_form_422(self, path: str) -> None:
        service = Service()
        response = service.ask("POST", path, files={"image": ("a.jpg", picture(), "image/jpeg")})
        assert (response.status_code, response.json()) == (
            400,
            {"result": [], "msg": "The multipart body has no part `file`."},
        )
        assert service.ask("POST", path, content=picture()).status_code == 422
        assert service.ask("POST", path).status_code == 422

    @pytest.mark.parametrize("path", CLOSED[:4])
    def test_a_body_over_the_limit_is_413_with_and_without_a_length(self, path: str) -> None:
        async def pieces() -> Any:
            for _ in range(200):
                yield b"x" * 1000

        service = Service(max_body_bytes=100_000)
        form = {**KEY, "content-type": "multipart/form-data; boundary=b"}
        assert service.ask("POST", path, form, content=b"x" * 200_000).status_code == 413
        chunked = service.ask("POST", path, form, content=pieces())
        assert chunked.status_code in (413, 422)  # a form that begins with x is none at its first byte
        assert chunked.json()["result"] == []

    @pytest.mark.parametrize(
        "body",
        [
            *(
                b"",
                b"dog",
                b"{",
                b"[]",
                b'"dog"',
                b"{}",
                b'{"text":5}',
                b'{"text":null}',
                b'{"text":["dog"]}',
                b'{"text":"\\ud800"}',
            ),
            *(b'{"text":"\xff"}', b"[" * 60_000),
        ],
        ids=range(12),
    )
    def test_a_text_query_that_is_none_is_422(self, body: bytes) -> None:
        service = Service()
        response = service.ask("POST", "/clip/txt", content=body)
        assert (response.status_code, response.json()["result"]) == (422, [])
        assert service.runners.jobs == []

    def test_a_chunked_text_query_is_read_and_one_without_end_refused(self) -> None:
        async def pieces(body: bytes, times: int) -> Any:
            for _ in range(times):
                yield body

        service = Service()
        assert service.ask("POST", "/clip/txt", content=pieces(b'{"text":"dog"}', 1)).status_code == 200
        assert service.ask("POST", "/clip/txt", content=pieces(b" " * 1000, 1000)).status_code == 413

    @pytest.mark.parametrize("path", PICTURE_ROUTES)
    @pytest.mark.parametrize(
        ("error", "status", "message"),
        [
            (ServiceError(ErrorCode.UNREADABLE_PICTURE, "It is cut short."), 415, "It is cut short."),
            (ServiceError(ErrorCode.MODEL_UNAVAILABLE, "No weights."), 503, "No weights."),
            (ServiceError(ErrorCode.RUNNER_UNAVAILABLE, "Away."), 503, "Away."),
            (RuntimeError("secret"), 500, "The service failed; its log has the details."),
        ],
    )
    def test_what_fails_in_a_runner_has_its_status_and_the_old_body(
        self, path: str, error: Exception, status: int, message: str
    ) -> None:
        service = Service()
        service.runners.error = error
        response = service.upload(path, picture())
        assert (response.status_code, response.json()) == (status, {"result": [], "msg": message})
        assert ("retry-after" in response.headers) == (status == 503)

    def test_a_request_that_takes_too_long_is_504(self) -> None:
        service = Service(request_timeout=0.05)
        service.runners.delay = 5
        assert service.upload("/ocr", picture()).status_code == 504

    @pytest.mark.parametrize("path", [*PICTURE_ROUTES, "/restart_v2", "/check"])
    def test_before_the_runners_are_there_requests_are_503(self, path: str) -> None:
        service = Service()
        service.mtphotos.runners = None
        response = service.upload(path, picture())
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/ocr"), ("GET", "/check"), ("POST", "/face/check"), ("PUT", "/restart_v2")]
    )
    def test_other_methods_are_405(self, method: str, path: str) -> None:
        assert Service().ask(method, path).status_code == 405
