/** MLX's way of printing arrays: `array([1, 2, 3], dtype=int32)`. */
import { type ArrayDesc, readBits } from "./array.ts";
import { type Dtype, fromBfloat16Bits, fromFloat16Bits } from "./dtype.ts";
import { opError } from "./error.ts";

export interface ComplexValue {
  re: number;
  im: number;
}
export type ScalarValue = number | boolean | ComplexValue;

/** Elements in row-major order as JavaScript values. 64-bit integers come as numbers. */
export function readValues(desc: ArrayDesc): ScalarValue[] {
  const bits = readBits(desc);
  const n = desc.size;
  const out = new Array<ScalarValue>(n);
  switch (desc.dtype.name) {
    case "bool": for (let i = 0; i < n; i++) out[i] = bits[i] !== 0; break;
    case "bfloat16": for (let i = 0; i < n; i++) out[i] = fromBfloat16Bits(bits[i] as number); break;
    case "float16": for (let i = 0; i < n; i++) out[i] = fromFloat16Bits(bits[i] as number); break;
    case "complex64": for (let i = 0; i < n; i++) out[i] = { re: bits[2 * i] as number, im: bits[2 * i + 1] as number }; break;
    default: for (let i = 0; i < n; i++) out[i] = Number(bits[i]);
  }
  return out;
}

export interface PrintOptions {
  /** Digits behind the point of floating point numbers; -1 prints six significant digits. */
  readonly precision: number;
}
let options: PrintOptions = { precision: -1 };
/** How arrays are printed from now on: `{precision}` or the precision itself. Called without one, the default. */
export function setPrintoptions(given?: Partial<PrintOptions> | number | null): void {
  const precision = (typeof given === "number" ? given : given?.precision) ?? -1;
  if (!Number.isInteger(precision) || precision < -1 || precision > 100) throw opError("setPrintoptions", `precision must be an integer of -1 to 100, got ${precision}`);
  options = { precision };
}
/** How arrays are printed. */
export const getPrintoptions = (): PrintOptions => options;

/** Sets print options until the returned object is disposed: `using scope = mx.printoptions({precision: 3})`. */
export function printoptions(given?: Partial<PrintOptions> | number | null): Disposable {
  const before = options;
  setPrintoptions(given);
  let open = true;
  const close = (): void => {
    if (open) options = before;
    open = false;
  };
  return { [Symbol.dispose ?? Symbol.for("nodejs.dispose")]: close } as Disposable;
}

/** A positive number with digits behind the point as C++ rounds it: ties, which `toFixed` rounds up, to an even digit. */
function fixedDigits(x: number, digits: number): string {
  if (x >= 1e21) return `${BigInt(x)}${digits > 0 ? `.${"0".repeat(digits)}` : ""}`;
  const rounded = x.toFixed(digits);
  // A tie has no more than `digits` + 1 digits, and numbers that come as near to one as a float64 can are told from it by 100.
  const exact = digits < 100 ? x.toFixed(100) : "";
  const end = exact.length - 100 + digits;
  if (!/^50*$/.test(exact.slice(end))) return rounded;
  const below = digits === 0 ? exact.slice(0, end - 1) : exact.slice(0, end);
  return Number(below[below.length - 1]) % 2 === 0 ? below : rounded;
}

/** A number as C++ prints it: with fixed digits, or in the default stream format (6 significant digits, exponent below 1e-4 and from 1e6 on). */
function formatFloat(x: number): string {
  if (Number.isNaN(x)) return "nan";
  if (!Number.isFinite(x)) return x > 0 ? "inf" : "-inf";
  if (options.precision >= 0) return `${x < 0 || Object.is(x, -0) ? "-" : ""}${fixedDigits(Math.abs(x), options.precision)}`;
  if (x === 0) return Object.is(x, -0) ? "-0" : "0";
  const text = x.toPrecision(6);
  const e = Number(x.toExponential(5).split("e")[1]);
  if (e < -4 || e >= 6) {
    const [m, exponent] = x.toExponential(5).split("e") as [string, string];
    const mantissa = m.includes(".") ? m.replace(/\.?0+$/, "") : m;
    const digits = exponent.slice(1).padStart(2, "0");
    return `${mantissa}e${exponent[0]}${digits}`;
  }
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function formatValue(v: ScalarValue, dtype: Dtype): string {
  if (typeof v === "boolean") return String(v);
  if (typeof v === "number") return dtype.isFloat ? formatFloat(v) : String(v);
  return `${formatFloat(v.re)}${v.im < 0 || Object.is(v.im, -0) ? "-" : "+"}${formatFloat(Math.abs(v.im))}j`;
}

const edge = 3;
/** `array(...)` with the shape's nesting; dimensions longer than six show their first and last three entries. */
export function formatArray(desc: ArrayDesc): string {
  const values = readValues(desc);
  const { shape, dtype } = desc;
  const block = (dim: number, at: number, step: number, indent: string): string => {
    if (dim === shape.length) return formatValue(values[at] as ScalarValue, dtype);
    const n = shape[dim] as number;
    const inner = n === 0 ? 0 : step / n;
    const parts: string[] = [];
    for (let i = 0; i < n; i++) {
      if (n > 2 * edge && i === edge) {
        parts.push("...");
        i = n - edge - 1;
      } else parts.push(block(dim + 1, at + i * inner, inner, `${indent} `));
    }
    const joint = dim === shape.length - 1 ? ", " : `,\n${indent}`;
    return `[${parts.join(joint)}]`;
  };
  return `array(${block(0, 0, desc.size, "       ")}, dtype=${dtype})`;
}
