"""LZW as Go writes it, for tests: codes of 9 to 12 bits, a clear code first and whenever the table is full."""


def lzw(data: bytes) -> bytes:
    bits = count = 0
    codes = {bytes([each]): each for each in range(256)}
    newest, width = 257, 9

    def put(code: int) -> None:
        nonlocal bits, count
        bits |= code << count
        count += width

    put(256)
    text = b""
    out = bytearray()
    for index, byte in enumerate(data):
        longer = text + bytes([byte])
        if longer in codes:
            text = longer
            continue
        put(codes[text])
        text = bytes([byte])
        newest += 1
        width += newest == 1 << width
        if newest == 4095:
            put(256)
            codes = {bytes([each]): each for each in range(256)}
            newest, width = 257, 9
        else:
            codes[longer] = newest
        if index % 512 == 0:
            whole = count // 8
            out += (bits & (1 << 8 * whole) - 1).to_bytes(whole, "little")
            bits, count = bits >> 8 * whole, count - 8 * whole
    if text:
        put(codes[text])
        newest += 1
        width += newest == 1 << width
        if newest == 4095:
            put(256)
            width = 9
    put(257)
    return bytes(out) + bits.to_bytes((count + 7) // 8, "little")
