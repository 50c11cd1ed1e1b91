/** The part of the WebAssembly namespace that this project uses; @types/node has none and lib.dom would bring a browser's globals. */
declare namespace WebAssembly {
  interface MemoryDescriptor {
    initial: number;
    maximum?: number;
    shared?: boolean;
  }
  class Memory {
    constructor(descriptor: MemoryDescriptor);
    /** A SharedArrayBuffer in truth; typed so that views of it pass where any bytes do. */
    readonly buffer: ArrayBuffer;
    grow(pages: number): number;
  }
  class Table {
    constructor(descriptor: { element: "anyfunc"; initial: number; maximum?: number });
    get(index: number): unknown;
    set(index: number, value: unknown): void;
    grow(count: number): number;
    readonly length: number;
  }
  class Global {
    constructor(descriptor: { value: "i32" | "f32" | "i64" | "f64"; mutable?: boolean }, value: number | bigint);
    value: unknown;
  }
  type ExportKind = "function" | "memory" | "table" | "global";
  interface ModuleItem {
    readonly module: string;
    readonly name: string;
    readonly kind: ExportKind;
  }
  class Module {
    constructor(bytes: Uint8Array | ArrayBuffer);
    private readonly module: never;
    static exports(module: Module): ModuleItem[];
    static imports(module: Module): ModuleItem[];
  }
  class Instance {
    constructor(module: Module, imports?: Record<string, Record<string, unknown>>);
    readonly exports: Record<string, unknown>;
  }
  class RuntimeError extends Error {}
  class CompileError extends Error {}
  function validate(bytes: Uint8Array | ArrayBuffer): boolean;
}
