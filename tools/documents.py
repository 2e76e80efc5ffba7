"""Small valid documents for an onboarding: two PDFs and a PNG."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def pdf(text: str) -> bytes:
    """
    Make a PDF with one line on one page (PDF 1.4, ISO 32000-1, 7.5: header, objects, cross-reference, trailer).

    :param text: the line; ASCII without parentheses and backslashes
    """
    content = f"BT /F1 24 Tf 72 720 Td ({text}) Tj ET".encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    written = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    entries = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(written))
    return written + b"xref\n0 %d\n%s" % (size, entries) + trailer


def png(*, width: int, height: int, rgb: tuple[int, int, int]) -> bytes:
    """
    Make a PNG of one colour (PNG specification, chunks IHDR, IDAT, IEND).

    :param width: pixels
    :param height: pixels
    :param rgb: red, green, blue, 0 to 255
    """

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(rgb) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_documents(folder: Path) -> dict[str, str]:
    """
    Write the three documents that an onboarding needs (api-reference 1.1).

    :param folder: created if missing
    :return: form field → path
    """
    contents = {
        "id_document": ("passport.pdf", pdf("Passport of a person who does not exist")),
        "proof_address": ("utility-bill.png", png(width=120, height=160, rgb=(96, 165, 250))),
        "bank_statement": ("bank-statement.pdf", pdf("Bank statement of the same person")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.values():
        (folder / name).write_bytes(content)
    return {field: str(folder / name) for field, (name, _) in contents.items()}
