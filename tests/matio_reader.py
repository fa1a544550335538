"""Read variables with matio, a C library with its own reading of the MATLAB formats.

`python matio_reader.py <file.mat> <folder> <variables>` writes `<folder>/<variable>.npy`, an
array in MATLAB's axes, or for a cell array its strings. Exit code 77 without matio.
"""

import ctypes
import ctypes.util
import sys
from typing import ClassVar

import numpy as np


class Variable(ctypes.Structure):
    """matvar_t of matio 1.5, up to its data."""

    _fields_: ClassVar = [
        ("nbytes", ctypes.c_size_t),
        ("rank", ctypes.c_int),
        ("data_type", ctypes.c_int),
        ("data_size", ctypes.c_int),
        ("class_type", ctypes.c_int),
        ("is_complex", ctypes.c_int),
        ("is_global", ctypes.c_int),
        ("is_logical", ctypes.c_int),
        ("dims", ctypes.POINTER(ctypes.c_size_t)),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
    ]


CELL = 1
DTYPES = {4: "U", 7: np.float32, 9: np.uint8, 11: np.uint16}
"""By class: MAT_C_CHAR, MAT_C_SINGLE, MAT_C_UINT8, MAT_C_UINT16."""


def value(variable: Variable) -> np.ndarray:
    shape = variable.dims[: variable.rank]
    if variable.class_type == CELL:
        cells = ctypes.cast(variable.data, ctypes.POINTER(ctypes.POINTER(Variable)))
        return np.array([value(cells[i].contents) for i in range(int(np.prod(shape)))])
    raw = ctypes.string_at(variable.data, variable.nbytes)
    if DTYPES[variable.class_type] == "U":
        codes = {1: "latin-1", 2: "utf-16-le"}
        return np.array(raw.decode(codes[variable.data_size]))
    return np.frombuffer(raw, DTYPES[variable.class_type]).reshape(shape, order="F")


def main() -> None:
    path, folder, *names = sys.argv[1:]
    library = ctypes.util.find_library("matio")
    if library is None:
        sys.exit(77)
    matio = ctypes.CDLL(library)
    matio.Mat_Open.restype = ctypes.c_void_p
    matio.Mat_VarRead.restype = ctypes.POINTER(Variable)
    file = ctypes.c_void_p(matio.Mat_Open(path.encode(), 0))
    for name in names:
        found = matio.Mat_VarRead(file, name.encode())
        np.save(f"{folder}/{name}.npy", value(found.contents))


if __name__ == "__main__":
    main()
