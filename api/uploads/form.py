"""multipart/form-data (RFC 7578) as a stream: each part with a filename is a file, and a field `name` the dataset's."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import Code, Problem
from api.uploads.incoming import Incoming

LONGEST_FIELD_BYTES = 800


class Form:
    """Feeds `incoming` with the files in a body; `name` is that field's value."""

    def __init__(self, content_type: str, incoming: Incoming) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise _malformed("its Content-Type names no boundary")
        self.name: str | None = None
        self._incoming = incoming
        self._header, self._value = bytearray(), bytearray()
        self._disposition, self._field = "", bytearray()
        self._in_file, self._ended = False, False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as problem:
            raise _malformed("its boundary is too long") from problem

    def feed(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError as problem:
            raise _malformed("it breaks off, or its parts are not divided by the boundary") from problem

    def close(self) -> None:
        """Raises a 400 problem for a body that ended too early."""
        if not self._ended:
            raise _malformed("its last boundary is missing")

    def _part_begin(self) -> None:
        self._header.clear()
        self._value.clear()
        self._disposition = ""

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        elif self._header.lower() == b"content-transfer-encoding" and self._value.strip().lower() in _ENCODED:
            raise _malformed("a part has a Content-Transfer-Encoding; send its bytes as they are")
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data":
            raise _malformed("a part has no Content-Disposition of form-data")
        self._in_file = b"filename" in options
        if self._in_file:
            self._incoming.begin(options[b"filename"].decode("utf-8", "surrogateescape"))
        elif options.get(b"name") != b"name":
            detail = "A part that is no file must be the field `name`"
            hint = "A file has a filename, as in curl -F 'files=@cat.jpg;filename=train/cat/1.jpg'"
            raise Problem(422, Code.INVALID_REQUEST, detail, hint=hint)
        self._field.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._incoming.write(data[start:end])
            return
        self._field += data[start:end]
        if len(self._field) > LONGEST_FIELD_BYTES:
            raise Problem(422, Code.INVALID_REQUEST, f"The field `name` is longer than {LONGEST_FIELD_BYTES} bytes")

    def _part_end(self) -> None:
        if self._in_file:
            self._incoming.end()
        else:
            self.name = self._field.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


_ENCODED = (b"base64", b"quoted-printable")


def _malformed(why: str) -> Problem:
    detail = f"The body is not multipart/form-data: {why}"
    return Problem(400, Code.MALFORMED_MULTIPART, detail, hint="Let your HTTP library build the form")
