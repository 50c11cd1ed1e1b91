/** The CPU backend of this process: made on first use, so that importing the library costs nothing and a failure is an error at a call. */
import { backends } from "../../core/device.ts";
import { installHostMemory } from "../../core/storage.ts";
import { SharedMemory } from "./memory.ts";
import { WorkerPool } from "./pool.ts";

export interface WasmBackend {
  readonly memory: SharedMemory;
  readonly pool: WorkerPool;
}

let backend: WasmBackend | undefined;
const watchers: ((b: WasmBackend) => void)[] = [];

/** The backend. Throws MxError when there is no room for its memory. */
export function wasmBackend(): WasmBackend {
  if (!backend) {
    const memory = new SharedMemory();
    backend = { memory, pool: new WorkerPool(memory) };
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
