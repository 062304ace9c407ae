"""Files that ask for much more memory than they hold bytes, for test_bombs.py."""

import gzip
import io
import struct
import zlib

import numpy as np

GIGABYTES = 3 * 10**9
SIDE = 20_000


def zeros(count):
    """A raw deflate stream of at least `count` zeros, made without unpacking them anywhere."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # A full flush ends at a byte and forgets the past, so that the piece can be repeated.
    piece = packer.compress(bytes(10**6)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * -(-count // 10**6) + packer.flush()


def header(shape, kind="|u1"):
    """The beginning of an .npy file."""
    stream = io.BytesIO()
    given = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, given)
    return stream.getvalue()


def packed(content):
    """`content` as a raw deflate stream that goes on, at a byte boundary."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)


def raw_zip(members):
    """A zip file of (name, deflated bytes, unpacked size and checksum as the directory has it)."""
    body, directory = b"", b""
    for name, content, size, check in members:
        encoded, wide = name.encode(), struct.pack("<HHQQ", 1, 16, size, len(content))
        common = struct.pack("<HHHHHLLL", 45, 0, 8, 0, 0, check, 2**32 - 1, 2**32 - 1)
        common += struct.pack("<HH", len(encoded), len(wide))
        directory += b"PK\1\2" + struct.pack("<H", 45) + common
        directory += struct.pack("<HHHLL", 0, 0, 0, 0, len(body)) + encoded + wide
        body += b"PK\3\4" + common + encoded + wide + content
    end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


def npz(**changes):
    """An .npz file of 8 and 4 images; `changes` are a member's content, or (deflated, size)."""
    members = []
    for part, count in (("train", 8), ("test", 4)):
        images = np.arange(count * 784, dtype=np.uint8).reshape(count, 28, 28)
        for name, array in ((f"x_{part}", images), (f"y_{part}", np.arange(count) % 3)):
            content = header(array.shape, array.dtype.str) + array.tobytes()
            given = changes.get(name, content)
            if isinstance(given, bytes):
                given = packed(given) + b"\3\0", len(given), zlib.crc32(given)
            members.append((f"{name}.npy", *given, *[0] * (3 - len(given))))
    return raw_zip(members)


def npz_that_unpacks_to_gigabytes():
    """Honest headers: 3 GB of zeros in 3 MB, with labels as many."""
    images, labels = header((GIGABYTES // 784, 28, 28)), header((GIGABYTES // 784,))
    size = GIGABYTES // 784
    return npz(
        x_train=(packed(images) + zeros(size * 784), len(images) + size * 784),
        y_train=(packed(labels) + zeros(size), len(labels) + size),
    )


def npz_with_a_header_that_lies():
    """10^12 rows in a member of a few bytes, as the directory rightly says."""
    images, labels = header((10**12, 28, 28)), header((10**12,))
    return npz(
        x_train=(packed(images) + zeros(1), len(images) + 10**6),
        y_train=(packed(labels) + zeros(1), len(labels) + 10**6),
    )


def npz_with_a_directory_that_lies(rows=10**12):
    """As many rows in the directory of the zip file, too."""
    images, labels = header((rows, 28, 28)), header((rows,))
    return npz(
        x_train=(packed(images) + zeros(1), len(images) + rows * 784),
        y_train=(packed(labels) + zeros(1), len(labels) + rows),
    )


def npz_with_a_long_header():
    """An .npy header that says it is 3 GB long."""
    content = b"\x93NUMPY\2\0" + struct.pack("<L", GIGABYTES)
    return npz(x_train=(packed(content) + zeros(GIGABYTES), len(content) + GIGABYTES))


def npz_with_label(label, kind="<i8"):
    """One label of the training images is `label`; with a label of 1 it is a good file."""
    content = header((8,), kind) + np.array([0, 1, 2, 0, 1, 2, 0, label], kind).tobytes()
    return npz(y_train=content)


def idx(*shape):
    """The beginning of an idx file."""
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def gz(content, zeros_after):
    """A gzip file; its checksum is wrong, which is known only at its end."""
    start = gzip.compress(b"")[:10]
    return start + packed(content) + zeros(zeros_after) + bytes(8)


def png(width, height, content=b""):
    """A gray PNG that announces so many pixels; `content` is its packed pixels."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    content = content or zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def images():
    """Name -> an image file that asks for 20,000 x 20,000 pixels (WebP: 16,383), or a strip."""
    bmp = b"BM" + struct.pack("<LLL", 2**31, 0, 54)
    bmp += struct.pack("<LllHHLLllLL", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99)
    gif = b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0x80, 0, 0) + bytes(6)
    gif += b"," + struct.pack("<HHHHB", 0, 0, SIDE, SIDE, 0) + b"\2\2\x44\1\0;"
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, SIDE, SIDE, 1) + b"\1\x11\0"
    jpeg += b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 63, 0) + bytes(99)
    tags = ((256, 4, SIDE), (257, 4, SIDE), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8))
    tiff = b"II*\0" + struct.pack("<LH", 8, len(tags))
    tiff += b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in tags)
    strip = zlib.compressobj(9)
    rows = strip.compress(bytes(2 * 5 * 10**6)) + strip.flush()
    webp = bytes.fromhex("524946461a000000574542505650384c0e0000002ffebfff0f071011fd0f4444ff03")
    return {
        "a.webp": webp,
        "a.png": png(SIDE, SIDE),
        "a.bmp": bmp,
        "a.gif": gif,
        "a.jpg": jpeg,
        "a.tiff": tiff + bytes(99),
        "a.pgm": b"P5 20000 20000 255\n" + bytes(99),
        "strip.png": png(1, 5 * 10**6, rows),
    }
