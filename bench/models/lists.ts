/** Times the CPU backend's lists of commands from outside: whole, or command by command. */
import type { WasmBackend } from "../../src/backend/wasm/index.ts";
import type { CommandList } from "../../src/backend/wasm/pool.ts";
import { commandEnd } from "../../src/schedule/record.ts";

/** The commands of a list, in order; those that run together count as one. */
export function commandsOf(words: Int32Array, list: CommandList): { kernel: number; units: number; members: number; list: CommandList }[] {
  const commands: { kernel: number; units: number; members: number; list: CommandList }[] = [];
  for (let at = list.start; at < list.end; ) {
    const next = commandEnd(words, at / 4) * 4;
    commands.push({ kernel: words[at / 4] as number, units: words[at / 4 + 2] as number, members: words[at / 4 + 5] as number, list: { start: at, end: next } });
    at = next;
  }
  return commands;
}

export interface Spent {
  milliseconds: number;
  calls: number;
}
/** Runs `f` with the pool's lists whole, or command by command, and gives the time that each took. Asynchronous lists are waited for. */
export function timeLists(backend: WasmBackend, apart: boolean, f: () => void): Map<string, Spent> {
  const { pool, memory } = backend;
  const spent = new Map<string, Spent>();
  const run = pool.run.bind(pool);
  const submit = pool.submit.bind(pool);
  const timed = <T>(name: string, work: () => T): T => {
    const start = performance.now();
    const result = work();
    const row = spent.get(name) ?? { milliseconds: 0, calls: 0 };
    spent.set(name, { milliseconds: row.milliseconds + performance.now() - start, calls: row.calls + 1 });
    return result;
  };
  const pieces = (list: CommandList): { name: string; list: CommandList }[] =>
    apart ? commandsOf(new Int32Array(memory.memory.buffer), list).map((c) => ({ name: `${pool.modules.nameOf(c.kernel)}, ${c.units} units${c.members > 0 ? ` and ${c.members} more` : ""}`, list: c.list })) : [{ name: "lists", list }];
  pool.run = (list) => {
    for (const p of pieces(list)) timed(p.name, () => run(p.list));
  };
  pool.submit = (list, over) => {
    const parts = pieces(list);
    const last = parts.pop();
    for (const p of parts) timed(p.name, () => run(p.list));
    return timed(last?.name ?? "lists", () => {
      const epoch = submit(last?.list ?? list, over);
      epoch.wait();
      return epoch;
    });
  };
  try {
    f();
  } finally {
    // The methods of the class show again.
    Reflect.deleteProperty(pool, "run");
    Reflect.deleteProperty(pool, "submit");
  }
  return spent;
}
