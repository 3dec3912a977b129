#!/usr/bin/env bash
# zstandard 0.25.0 (Python): a file that was cut off is read without an error, as if it ended there.
#
# Behaviour: of a frame whose end is missing, `zstandard.open(…).read()`, `read_to_iter` and `copy_stream` hand out what
#   can be had and then say that this was all. Of two frames one after the other, as `pzstd` and appending write them,
#   `read_to_iter` and `decompress` give the first and say nothing of the second; `open` and `copy_stream` give both.
# Why one guesses otherwise: `open` is made like those of gzip, bz2, lzma and lz4, and like that of Python 3.14's zstd
#   (backports.zstd before), which raise EOFError on a cut file; the zstd command fails, too. A frame says where it ends,
#   so its reader knows that the end did not come. A snapshot whose upload broke off is restored as a shorter one.
# Seen: of 500,000 random bytes, cut to 300,000 or without the last byte: part of them and 499,999, no error, by the
#   three. Of frames of 6,000 and 7,000 bytes: open and copy_stream 13,000, read_to_iter and decompress 6,000.
#   backports.zstd 1.8.0 and Python's gzip: EOFError twice, and 13,000.
. "$(dirname "$0")/common/check.sh"
install_python zstandard==0.25.0 backports.zstd==1.8.0

cat >"$SCRATCH/steps.py" <<'PY'
import gzip
import random
import sys

import zstandard
from backports import zstd


def copied(source):
    with open(sys.argv[1] + ".copy", "w+b") as target:
        zstandard.ZstdDecompressor().copy_stream(source, target)
        target.seek(0)
        return target.read()


ways = {
    "open": (zstandard.compress, lambda file: zstandard.open(file).read()),
    "read_to_iter": (zstandard.compress, lambda file: b"".join(zstandard.ZstdDecompressor().read_to_iter(file))),
    "copy_stream": (zstandard.compress, copied),
    "decompress": (zstandard.compress, lambda file: zstandard.decompress(file.read())),
    "backports.zstd": (zstd.compress, lambda file: zstd.open(file).read()),
    "gzip": (gzip.compress, lambda file: gzip.open(file).read()),
}
content = random.Random(1).randbytes(500_000)
for name, (compress, read) in ways.items():

    def seen(stored):
        with open(sys.argv[1], "wb") as file:
            file.write(stored)
        with open(sys.argv[1], "rb") as file:
            try:
                return read(file)
            except Exception as error:
                return type(error).__name__

    whole = compress(content)
    part, nearly = seen(whole[:300_000]), seen(whole[:-1])
    if isinstance(part, bytes) and content.startswith(part) and 0 < len(part) <= 300_000:
        part = "part"
    two = seen(compress(b"first " * 1000) + compress(b"second " * 1000))
    print(f"{name}: {part}, {nearly if isinstance(nearly, str) else len(nearly)}, {len(two)}")
PY
python "$SCRATCH/steps.py" "$SCRATCH/stored" >"$SCRATCH/seen"
described() { expect "$1, cut, without its last byte, two frames" "$2" "$(sed -n "s/^$1: //p" "$SCRATCH/seen")"; }
described open "part, 499999, 13000"
described read_to_iter "part, 499999, 6000"
described copy_stream "part, 499999, 13000"
described decompress "ZstdError, ZstdError, 6000"
described backports.zstd "EOFError, EOFError, 13000"
described gzip "EOFError, EOFError, 13000"
