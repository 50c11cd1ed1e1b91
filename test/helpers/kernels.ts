/** Runs single kernels of assembly/ on one thread, without the library: for tests of the kernels themselves. */
import { modules } from "../../src/backend/wasm/modules.gen.ts";

export type Build = "relaxed" | "plain";
type KernelFn = (a: number, begin: number, end: number) => void;
const scratchBytes = 4 << 20;
const relaxedWorks = Number(process.versions.node.split(".")[0]) >= 22;
/** Builds that this Node can run. Node 20 miscompiles the relaxed dot product, so there only the plain build counts. */
export const builds: readonly Build[] = relaxedWorks ? ["relaxed", "plain"] : ["plain"];

export class KernelBench {
  readonly memory = new WebAssembly.Memory({ initial: 4096, maximum: 65536, shared: true });
  private top = 65536 + scratchBytes;
  private readonly kernels: Record<string, unknown>;
  constructor(family: keyof typeof modules, build: Build) {
    const bytes = Buffer.from(modules[family][build], "base64");
    const scratch = new WebAssembly.Global({ value: "i32" }, 65536);
    this.kernels = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory: this.memory, scratch } }).exports;
  }
  /** Address of `bytes` fresh bytes, 64-byte aligned, filled with 0xAA so that unwritten output shows. */
  alloc(bytes: number): number {
    const at = this.top;
    this.top = (this.top + bytes + 63 + 64) & ~63;
    const missing = this.top - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / 65536));
    new Uint8Array(this.memory.buffer, at, bytes).fill(0xaa);
    return at;
  }
  /** Copies typed-array data into fresh memory. */
  put(data: Uint8Array | Uint16Array | Uint32Array | Int32Array | Float32Array | Float64Array | BigInt64Array): number {
    const at = this.alloc(data.byteLength);
    new Uint8Array(this.memory.buffer, at, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return at;
  }
  f32(at: number, n: number): Float32Array {
    return new Float32Array(this.memory.buffer, at, n).slice();
  }
  u16(at: number, n: number): Uint16Array {
    return new Uint16Array(this.memory.buffer, at, n).slice();
  }
  u32(at: number, n: number): Uint32Array {
    return new Uint32Array(this.memory.buffer, at, n).slice();
  }
  i32(at: number, n: number): Int32Array {
    return new Int32Array(this.memory.buffer, at, n).slice();
  }
  /** Calls a kernel for units begin..end. Words: integers, or {f32}. */
  run(name: string, words: readonly (number | { f32: number })[], begin: number, end: number): void {
    const at = this.alloc(words.length * 4);
    const view = new DataView(this.memory.buffer);
    words.forEach((w, i) => (typeof w === "number" ? view.setInt32(at + 4 * i, w | 0, true) : view.setFloat32(at + 4 * i, w.f32, true)));
    (this.kernels[name] as KernelFn)(at, begin, end);
  }
}
