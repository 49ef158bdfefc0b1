#!/usr/bin/env python3
"""Makes the vectors in blob/, from FORMAT.md alone. Needs the package cryptography."""
import hashlib, hmac, json, pathlib, struct, uuid
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def canonical(context):
    out = struct.pack(">I", len(context))
    for key, value in sorted(context.items()):
        out += struct.pack(">I", len(key)) + key + struct.pack(">I", len(value)) + value
    return out


def vector(name, comment, context, plaintext, seed):
    def take(label, n):
        return hashlib.shake_128(f"{seed} {label}".encode()).digest(n)

    material, salt, iv = take("material", 32), take("n", 16), take("iv", 12)
    key_id = uuid.UUID(bytes=take("key", 16), version=4)
    material_id = hashlib.sha256(b"kmsfs key material ID" + key_id.bytes + material).digest()
    header = bytes([1, 1]) + material_id + key_id.bytes + salt + iv
    info = b"kmsfs ciphertext blob key" + material_id + key_id.bytes + salt
    key = hmac.new(material, info + b"\x01", hashlib.sha256).digest()
    blob = header + AESGCM(key).encrypt(iv, plaintext, header + canonical(context))
    path = pathlib.Path(__file__).parent / "blob" / (name + ".json")
    path.write_text(json.dumps({
        "comment": comment, "material": material.hex(), "keyId": str(key_id), "materialId": material_id.hex(),
        "n": salt.hex(), "iv": iv.hex(), "context": [[k.hex(), v.hex()] for k, v in context.items()],
        "canonicalContext": canonical(context).hex(), "plaintext": plaintext.hex(), "blob": blob.hex(),
    }, indent=2) + "\n")


vector("no_context", "A data key in no context.", {}, bytes(range(32)), "1")
vector("file", "A data key in a file's context.", {
    b"kmsfs:volume": b"3f2b8c1e-0000-4000-8000-000000000000", b"kmsfs:path": b"/a/b.txt", b"kmsfs:owner": b"uid:1000",
}, bytes(range(32)), "2")
vector("order", "Pairs are sorted by the bytes of their keys, of which one is a prefix of the other, one no UTF-8, one empty.", {
    b"b": b"1", b"ab": b"2", b"a": b"3", b"\xff": b"\xfe", "é".encode(): b"", b"": b"4",
}, b"x", "3")
vector("longest", "The longest plaintext.", {b"k": b"v"}, b"p" * 4096, "4")
