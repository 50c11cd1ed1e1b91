/**
 * Body of a worker thread. Bundled into a string (worker.gen.ts) so that no file has to be found at run time.
 * It lives inside `serve`/`help` of assembly/pool.ts and comes back only for new modules, finished asynchronous lists, or the end.
 */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";

export interface WorkerSetup {
  readonly memory: WebAssembly.Memory;
  readonly pool: WebAssembly.Module;
  readonly control: number;
  readonly scratch: number;
  readonly seat: number;
  readonly seats: number;
  readonly spin: number;
  /** Takes the main thread's seat in asynchronous lists instead of serving all lists. */
  readonly helper: boolean;
}
/** Kernels of one module, for the function table from index `base` on. */
export interface ModuleMessage {
  readonly module: WebAssembly.Module;
  readonly base: number;
  readonly names: readonly string[];
}
export type WorkerReport = { readonly finished: number } | { readonly failed: string };

interface PoolExports {
  serve(p: number, seat: number, seats: number, version: number, spin: number): number;
  help(p: number, seat: number, seats: number, version: number, spin: number, seen: number): number;
  wake(p: number): void;
}

function main(): void {
  const setup = workerData as WorkerSetup;
  const { memory, control } = setup;
  const port = parentPort;
  if (!port) return;
  const table = new WebAssembly.Table({ element: "anyfunc", initial: 1024 });
  const scratch = new WebAssembly.Global({ value: "i32" }, setup.scratch);
  const words = new Int32Array(memory.buffer, control, 256);
  const finishedAt = 640 / 4;
  const pool = new WebAssembly.Instance(setup.pool, { env: { memory, table } }).exports as unknown as PoolExports;
  let version = 0;
  // Lists may have finished before this thread started: 0 makes it report them.
  let seen = 0;

  const load = (): void => {
    for (let m = receiveMessageOnPort(port); m; m = receiveMessageOnPort(port)) {
      const { module, base, names } = m.message as ModuleMessage;
      const exports = new WebAssembly.Instance(module, { env: { memory, scratch } }).exports;
      while (table.length < base + names.length) table.grow(1024);
      names.forEach((name, i) => table.set(base + i, exports[name]));
      version++;
    }
  };
  try {
    for (;;) {
      load();
      const why = setup.helper
        ? pool.help(control, setup.seat, setup.seats, version, setup.spin, seen)
        : pool.serve(control, setup.seat, setup.seats, version, setup.spin);
      if (why === 2) return;
      if (why === 3) {
        seen = Atomics.load(words, finishedAt);
        port.postMessage({ finished: seen } satisfies WorkerReport);
      }
    }
  } catch (error) {
    // A kernel trapped. Its chunk will never finish: tell everybody who waits.
    Atomics.store(words, 772 / 4, 1);
    pool.wake(control);
    port.postMessage({ failed: String(error) } satisfies WorkerReport);
  }
}

main();
