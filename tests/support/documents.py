"""Small files of each type that the exchange takes, whole as far as this package looks."""

from __future__ import annotations

import io
import zipfile

from tools.documents import pdf, png

PDF = pdf("A document")
PNG = png(width=2, height=2, rgb=(1, 2, 3))
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9"
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"


def archive(**files: bytes) -> bytes:
    """Make a ZIP file."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return written.getvalue()


XPS = archive(**{"[Content_Types].xml": b"<Types/>", "FixedDocSeq.fdseq": b"<FixedDocumentSequence/>"})
