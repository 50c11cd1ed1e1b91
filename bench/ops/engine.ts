/** A library under test, and the process that holds it: it prepares a row, gives its results once, and takes samples of its time. */
import { type ChildProcess, fork } from "node:child_process";
import type { Tensor } from "./cases.ts";

export type Row<A> = (inputs: A[]) => A[];
export interface Engine<A> {
  /** Lazy or running results of each row. */
  readonly rows: Readonly<Record<string, Row<A>>>;
  /** Arrays in the library's memory, complete. */
  put(name: string, tensors: readonly Tensor[]): A[] | Promise<A[]>;
  /** Numbers of the results. */
  read(name: string, outputs: A[]): Promise<Float32Array[]>;
  /** Computes results; a Promise only where the library can not wait otherwise. */
  finish(outputs: A[]): Promise<unknown> | undefined;
  dispose(arrays: A[]): void;
}

export type Request =
  | { readonly do: "prepare"; readonly name: string; readonly inputs: readonly Tensor[] }
  | { readonly do: "measure"; readonly milliseconds: number };
export type Reply = { readonly outputs: Float32Array[] } | { readonly seconds: number } | { readonly missing: true } | { readonly ready: true } | { readonly error: string };

/** Child's side. */
export async function serve<A>(open: () => Promise<Engine<A>>): Promise<void> {
  const send = (reply: Reply): void => void process.send?.(reply);
  const fail = (error: unknown): void => send({ error: String(error instanceof Error ? error.stack : error) });
  try {
    const engine = await open();
    let prepared: { row: Row<A>; inputs: A[] } | undefined;
    const call = async (): Promise<void> => {
      const { row, inputs } = prepared as NonNullable<typeof prepared>;
      const outputs = row(inputs);
      const waiting = engine.finish(outputs);
      if (waiting) await waiting;
      engine.dispose(outputs);
    };
    const prepare = async (name: string, tensors: readonly Tensor[]): Promise<Reply> => {
      if (prepared) engine.dispose(prepared.inputs);
      prepared = undefined;
      const row = engine.rows[name];
      if (!row) return { missing: true };
      prepared = { row, inputs: await engine.put(name, tensors) };
      const outputs = row(prepared.inputs);
      await engine.finish(outputs);
      return { outputs: await engine.read(name, outputs) };
    };
    /** Mean time of the calls that fill the time. What earlier samples left to garbage collection goes first. */
    const measure = async (milliseconds: number): Promise<Reply> => {
      globalThis.gc?.();
      await new Promise(setImmediate);
      const start = performance.now();
      let calls = 0;
      do {
        await call();
        calls++;
      } while (performance.now() - start < milliseconds);
      return { seconds: (performance.now() - start) / calls / 1000 };
    };
    process.on("message", (r: Request) => void (r.do === "prepare" ? prepare(r.name, r.inputs) : measure(r.milliseconds)).then(send, fail));
    process.on("disconnect", () => process.exit(0));
    send({ ready: true });
  } catch (error) {
    fail(error);
  }
}

/** Parent's side. */
export class Remote {
  readonly name: string;
  readonly #child: ChildProcess;
  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#child = child;
  }
  static async start(name: string, script: string, args: readonly string[]): Promise<Remote> {
    const remote = new Remote(name, fork(script, args, { execArgv: [...process.execArgv, "--expose-gc"], stdio: ["ignore", "inherit", "inherit", "ipc"], serialization: "advanced" }));
    await remote.#next();
    return remote;
  }
  #next(): Promise<Exclude<Reply, { error: string }>> {
    return new Promise((resolve, reject) => {
      const ended = (code: number | null, signal: string | null): void => reject(new Error(`${this.name} ended with ${signal ?? code}`));
      this.#child.once("exit", ended);
      this.#child.once("message", (reply: Reply) => {
        this.#child.off("exit", ended);
        if ("error" in reply) reject(new Error(`${this.name}: ${reply.error}`));
        else resolve(reply);
      });
    });
  }
  async ask(request: Request): Promise<Exclude<Reply, { error: string }>> {
    const reply = this.#next();
    this.#child.send(request);
    return reply;
  }
  /** The row's results; undefined when the library has no such row. */
  async prepare(name: string, inputs: readonly Tensor[]): Promise<Float32Array[] | undefined> {
    const reply = await this.ask({ do: "prepare", name, inputs });
    return "outputs" in reply ? reply.outputs : undefined;
  }
  /** Seconds per call, over at least this time. */
  async measure(milliseconds: number): Promise<number> {
    const reply = await this.ask({ do: "measure", milliseconds });
    return (reply as { seconds: number }).seconds;
  }
  stop(): void {
    this.#child.disconnect();
  }
}
