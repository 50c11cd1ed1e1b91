/** Kernel modules: compiled on first use, put into the function table of every thread. */
import { opError } from "../../core/error.ts";
import type { GeneratedKernel } from "../../core/op.ts";
import { modules } from "./modules.gen.ts";
import type { ModuleMessage } from "./worker.ts";

type Family = keyof typeof modules;
const families = modules as Record<string, { readonly exports: readonly string[]; readonly relaxed: string; readonly plain: string } | undefined>;

/** Node 20's baseline compiler gives wrong results for the relaxed int8 dot product, so relaxed SIMD needs V8 12. */
export function relaxedSimdWorks(setting: string): boolean {
  if (setting === "0") return false;
  const v8 = Number(process.versions.v8.split(".")[0]);
  return v8 >= 12 && WebAssembly.validate(relaxedProbe());
}
/** (module (func (drop (i8x16.relaxed_swizzle (v128.const 0) (v128.const 0))))) */
function relaxedProbe(): Uint8Array<ArrayBuffer> {
  const zero = [0xfd, 12, ...new Array<number>(16).fill(0)];
  const body = [0, ...zero, ...zero, 0xfd, 0x80, 2, 26, 11];
  return Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, body.length + 2, 1, body.length, ...body]);
}

export const moduleBytes = (family: Family, relaxed: boolean): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(modules[family][relaxed ? "relaxed" : "plain"], "base64"));

/** The function table of this thread and what other threads need to build the same. */
export class ModuleTable {
  readonly table = new WebAssembly.Table({ element: "anyfunc", initial: 1024 });
  readonly messages: ModuleMessage[] = [];
  private readonly indices = new Map<string, number>();
  private readonly names: string[] = [""];
  private readonly memory: WebAssembly.Memory;
  private readonly scratch: WebAssembly.Global;
  private readonly relaxed: boolean;
  /** Called after a module was added. */
  onAdded: (message: ModuleMessage) => void = () => {};

  constructor(memory: WebAssembly.Memory, scratch: number, relaxed: boolean) {
    this.memory = memory;
    this.scratch = new WebAssembly.Global({ value: "i32" }, scratch);
    this.relaxed = relaxed;
  }
  /** Number of modules made by codegen. */
  generated = 0;

  /** Table index of a kernel. */
  indexOf(entry: string | GeneratedKernel): number {
    const key = typeof entry === "string" ? entry : entry.key;
    const known = this.indices.get(key);
    if (known !== undefined) return known;
    if (typeof entry !== "string") {
      this.add(entry.bytes() as Uint8Array<ArrayBuffer>, ["k"], [key]);
      this.generated++;
      return this.indices.get(key) as number;
    }
    const family = entry.slice(0, entry.indexOf("/"));
    const record = families[family];
    if (!record) throw opError("kernel", `there is no kernel module ${JSON.stringify(family)}`);
    this.add(moduleBytes(family as Family, this.relaxed), record.exports, record.exports.map((e) => `${family}/${e}`));
    const index = this.indices.get(entry);
    if (index === undefined) throw opError("kernel", `module ${family} has no kernel ${JSON.stringify(entry)}`);
    return index;
  }
  nameOf(index: number): string {
    return this.names[index] ?? `#${index}`;
  }
  private add(bytes: Uint8Array<ArrayBuffer>, exports: readonly string[], keys: readonly string[]): void {
    const module = new WebAssembly.Module(bytes);
    const instance = new WebAssembly.Instance(module, { env: { memory: this.memory, scratch: this.scratch } });
    const base = this.names.length;
    while (this.table.length < base + exports.length) this.table.grow(1024);
    exports.forEach((name, i) => {
      this.table.set(base + i, instance.exports[name]);
      this.indices.set(keys[i] as string, base + i);
      this.names.push(keys[i] as string);
    });
    const message = { module, base, names: exports };
    this.messages.push(message);
    this.onAdded(message);
  }
}
