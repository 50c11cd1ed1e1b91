/** The CPU backend of this process: made on first use, so that importing the library costs nothing and a failure is an error at a call. */
import { backends } from "../../core/device.ts";
import { engine } from "../../core/engine.ts";
import { env } from "../../core/env.ts";
import { installHostMemory } from "../../core/storage.ts";
import { cpuFeatures, hasInt8Dot } from "./features.ts";
import { SharedMemory } from "./memory.ts";
import { fusesMultiplyAdd, setRelaxed } from "../../codegen/wasm.ts";
import { relaxedSimdWorks } from "./modules.ts";
import { type PairingState, openPairing } from "./pairing.ts";
import { WorkerPool } from "./pool.ts";

export interface WasmBackend {
  readonly memory: SharedMemory;
  readonly pool: WorkerPool;
  /** Vector pairing of V8. */
  readonly pairing: PairingState;
}

let backend: WasmBackend | undefined;
const watchers: ((b: WasmBackend) => void)[] = [];

/** The backend. Throws MxError when there is no room for its memory. */
export function wasmBackend(): WasmBackend {
  if (!backend) {
    engine.relaxed = relaxedSimdWorks(env("MLX_RELAXED_SIMD"));
    setRelaxed(engine.relaxed && fusesMultiplyAdd());
    engine.int8Dot = hasInt8Dot(process.arch, process.versions.v8, cpuFeatures());
    // Before the first kernel is compiled.
    const pairing = openPairing(engine.relaxed);
    engine.pairing = pairing.on;
    const memory = new SharedMemory();
    backend = { memory, pool: new WorkerPool(memory), pairing };
    for (const w of watchers) w(backend);
  }
  return backend;
}
/** Calls `watch` when the backend is made. */
export const onBackend = (watch: (b: WasmBackend) => void): void => {
  if (backend) watch(backend);
  else watchers.push(watch);
};

/** Called before the host writes memory; the scheduler runs what it has recorded but not yet submitted. */
let beforeHostWrite = (): void => {};
export const onHostWrite = (f: () => void): void => {
  beforeHostWrite = f;
};

backends.set("cpu", { available: true });
installHostMemory({
  alloc: (bytes) => wasmBackend().memory.alloc(bytes),
  free: (address, bytes) => wasmBackend().memory.free(address, bytes),
  bytes: (address, length) => wasmBackend().memory.bytes(address, length),
  quiesce: () => {
    beforeHostWrite();
    if (backend?.pool.busy) backend.pool.drain();
  },
});
