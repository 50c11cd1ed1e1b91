/** NumPy's .npy format, versions 1 to 3. bfloat16, which NumPy lacks, is written as MLX writes it: `<V2`, two opaque bytes. */
import { ArrayDesc, MxArray } from "../core/array.ts";
import {
  type Dtype, bfloat16, bool, complex64, float16, float32, float64, int16, int32, int64, int8, uint16, uint32, uint64, uint8,
} from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import type { Storage } from "../core/storage.ts";
import { type ByteSource, allocateAll, checkedSize, fill, loadError, releaseAll } from "./source.ts";
import { bytesOf, withExtension, writeFile } from "./write.ts";

const dtypeOf: ReadonlyMap<string, Dtype> = new Map([
  ["b1", bool], ["u1", uint8], ["u2", uint16], ["u4", uint32], ["u8", uint64], ["i1", int8], ["i2", int16], ["i4", int32], ["i8", int64],
  ["f2", float16], ["f4", float32], ["f8", float64], ["V2", bfloat16], ["c8", complex64],
]);
const codeOf = new Map([...dtypeOf].map(([code, dtype]) => [dtype, code]));

const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
/** Headers of plain dtypes are short; NumPy itself refuses to parse more than 10,000 bytes. */
const maxHeaderBytes = 65536;

/** What the header says. `data` is the position of the first byte of data. */
interface NpyHeader {
  readonly dtype: Dtype;
  readonly bigEndian: boolean;
  readonly fortran: boolean;
  readonly shape: readonly number[];
  readonly data: number;
}

function readText(source: ByteSource): { text: string; data: number } {
  if (source.size < 10) throw loadError(source, `an npy file has at least 10 bytes, got ${source.size}`);
  const start = new Uint8Array(Math.min(12, source.size));
  source.read(start, 0);
  if (magic.some((b, i) => start[i] !== b)) throw loadError(source, "it is not an npy file: it does not start with \\x93NUMPY");
  const major = start[6] as number;
  if (major < 1 || major > 3) throw loadError(source, `npy versions 1 to 3 are supported, got ${major}.${start[7]}`);
  const view = new DataView(start.buffer);
  const data = major === 1 ? 10 : 12;
  if (source.size < data) throw loadError(source, `the header is cut off, got a file of ${source.size} bytes`);
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > source.size - data) throw loadError(source, `the header is longer than the file, got a header of ${length} bytes in a file of ${source.size}`);
  if (length > maxHeaderBytes) throw loadError(source, `the header may have at most ${maxHeaderBytes} bytes, got ${length}`);
  const bytes = new Uint8Array(length);
  source.read(bytes, data);
  return { text: new TextDecoder(major === 3 ? "utf-8" : "latin1").decode(bytes), data: data + length };
}

/** Parses the Python dict literal {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }. */
function parseNpyHeader(source: ByteSource): NpyHeader {
  const { text, data } = readText(source);
  const descr = /['"]descr['"]\s*:\s*(['"])([^'"]*)\1/.exec(text)?.[2];
  const fortran = /['"]fortran_order['"]\s*:\s*(True|False)/.exec(text)?.[1];
  const dims = /['"]shape['"]\s*:\s*\(([\dL\s,]*)\)/.exec(text)?.[1];
  if (descr === undefined || fortran === undefined || dims === undefined) {
    if (/['"]descr['"]\s*:\s*\[/.test(text)) throw loadError(source, "structured dtypes are not supported");
    throw loadError(source, `the header needs descr, fortran_order and shape, got ${JSON.stringify(text.trim().slice(0, 120))}`);
  }
  const dtype = /^[<>=|]/.test(descr) ? dtypeOf.get(descr.slice(1)) : undefined;
  if (!dtype) throw loadError(source, `unsupported dtype, got ${JSON.stringify(descr)}; supported: ${[...dtypeOf.keys()].join(" ")}`);
  const shape = dims.split(",").map((d) => d.trim().replace(/L$/, "")).filter((d) => d !== "").map(Number);
  return { dtype, bigEndian: descr[0] === ">" && dtype.size > 1, fortran: fortran === "True", shape, data };
}

function swapBytes(bytes: Uint8Array, dtype: Dtype): void {
  const buffer = Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length);
  const size = dtype.kind === "complex" ? 4 : dtype.size;
  if (size === 2) buffer.swap16();
  else if (size === 4) buffer.swap32();
  else buffer.swap64();
}

/** Reads one array. Fortran order becomes a transposed view of the storage. */
export function readNpy(source: ByteSource): MxArray {
  const { dtype, bigEndian, fortran, shape, data } = parseNpyHeader(source);
  const bytes = checkedSize(source, "the array", shape, dtype.size) * dtype.size;
  if (bytes > source.size - data) throw loadError(source, `an array of ${bytes} bytes does not fit, got ${source.size - data} bytes of data`);
  const [desc] = allocateAll(source.name, [{ shape, dtype }]) as [ArrayDesc];
  try {
    const filled = fill(desc, source, data);
    if (bigEndian) swapBytes(filled, dtype);
  } catch (error) {
    releaseAll([desc]);
    throw error;
  }
  return new MxArray(fortran && shape.length > 1 ? columnMajor(desc) : desc);
}

/** The storage of `desc` seen in column-major order. */
function columnMajor(desc: ArrayDesc): ArrayDesc {
  const strides: number[] = [];
  let step = 1;
  for (const d of desc.shape) {
    strides.push(step);
    step *= d;
  }
  const view = ArrayDesc.lazy(desc.shape, desc.dtype);
  view.place(desc.storage as Storage, strides, 0);
  releaseAll([desc]);
  return view;
}

/** The npy header (version 1) of an array in row-major order; the data that follows starts at a multiple of 64 bytes. */
export function npyHeader(a: MxArray): Uint8Array {
  const { shape, dtype } = a;
  const descr = (dtype.size > 1 ? "<" : "|") + (codeOf.get(dtype) as string);
  const dims = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${dims}), }`;
  const total = Math.ceil((10 + text.length + 1) / 64) * 64;
  if (total > 65535) throw opError("save", `an npy header holds fewer dimensions, got ${shape.length}`);
  const out = new Uint8Array(total).fill(0x20);
  out.set([...magic, 1, 0, (total - 10) & 255, (total - 10) >> 8]);
  out.set(new TextEncoder().encode(text), 10);
  out[total - 1] = 0x0a;
  return out;
}

/**
 * Saves one array as .npy (version 1, row-major, little-endian; bfloat16 as `<V2`); `.npy` is added to a path without it. The file appears
 * whole or not at all. Throws when it can not be written.
 */
export function save(path: string, array: MxArray): void {
  if (!(array instanceof MxArray)) throw opError("save", `the second argument must be an array, got ${typeof array}`);
  writeFile("save", withExtension(path, ".npy"), (write) => {
    write(npyHeader(array));
    write(bytesOf(array));
  });
}
