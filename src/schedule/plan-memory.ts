/** Memory of a plan: storages without bytes, whose lives are written down, and the arena that the temporaries among them share. */
import type { DeviceBlock } from "../core/storage.ts";
import { Storage } from "../core/storage.ts";

/** Why something can not be planned. */
export class PlanRefused extends Error {}

/** A storage of a plan. */
export interface Slot {
  /** `constant`: an array that the definition of an op made; the plan holds it. */
  kind: "input" | "output" | "constant" | "temporary";
  readonly bytes: number;
  /** Number of the input; place among the outputs, constants or temporaries of the plan. */
  index: number;
  /** Commands recorded before it was made, and before it was given back. */
  readonly from: number;
  to: number;
  /** Byte of the arena where a temporary begins. */
  offset: number;
  /** Bytes of the slot's address that stand for the first element of an input. */
  readonly start: number;
  /** Of a constant. */
  readonly storage: Storage | undefined;
  /** An input that commands write. */
  written: boolean;
}

const never = Number.POSITIVE_INFINITY;

/** The bytes of a plan's storage can not be read: there are none. */
class NoBytes implements DeviceBlock {
  readonly lost = false;
  readonly hostAddress = 0;
  private readonly released: () => void;
  constructor(released: () => void) {
    this.released = released;
  }
  release(): void {
    this.released();
  }
  download(): void {
    this.finish();
  }
  write(): void {
    this.finish();
  }
  finish(): void {
    throw new PlanRefused("an op's definition reads values while it is planned");
  }
}

export class PlanMemory {
  private readonly slots = new Map<Storage, Slot>();
  private readonly now: () => number;
  constructor(now: () => number) {
    this.now = now;
  }
  /** A storage without bytes. */
  make(bytes: number): Storage {
    return this.add("temporary", bytes, this.slots.size, 0);
  }
  /** The storage of input `index`, whose first element stands at byte `start`. */
  input(index: number, bytes: number, start: number): Storage {
    return this.add("input", bytes, index, start);
  }
  private add(kind: Slot["kind"], bytes: number, index: number, start: number): Storage {
    const slot: Slot = { kind, bytes, index, from: this.now(), to: never, offset: 0, start, storage: undefined, written: false };
    const storage = new Storage(bytes, new NoBytes(() => {
      slot.to = this.now();
    }));
    this.slots.set(storage, slot);
    return storage;
  }
  /** A storage that was not made here belongs to an array that an op's definition made: the plan keeps it. */
  of(storage: Storage): Slot {
    const known = this.slots.get(storage);
    if (known) return known;
    storage.retain();
    const slot: Slot = { kind: "constant", bytes: storage.bytes, index: 0, from: 0, to: never, offset: 0, start: 0, storage, written: false };
    this.slots.set(storage, slot);
    return slot;
  }
  /** Storages that are still held became outputs. Numbers all slots by kind. */
  finish(): { readonly outputs: readonly Slot[]; readonly constants: readonly Slot[]; readonly temporaries: readonly Slot[] } {
    const all = [...this.slots.values()];
    for (const s of all) if (s.kind === "temporary" && s.to === never) s.kind = "output";
    const numbered = (kind: Slot["kind"]): Slot[] => {
      const found = all.filter((s) => s.kind === kind);
      found.forEach((s, i) => {
        s.index = i;
      });
      return found;
    };
    return { outputs: numbered("output"), constants: numbered("constant"), temporaries: numbered("temporary") };
  }
}

/**
 * Places temporaries in one arena and returns its bytes: the largest first, each at the lowest byte that no other one needs at the same time. (Pisarchyk and Lee,
 * Efficient Memory Management for Deep Neural Net Inference, 2020, "greedy by size".)
 */
export function placeInArena(slots: readonly Slot[], alignment: number): number {
  const size = (s: Slot): number => Math.ceil(s.bytes / alignment) * alignment;
  const placed: Slot[] = [];
  let end = 0;
  for (const slot of [...slots].sort((a, b) => b.bytes - a.bytes || a.from - b.from)) {
    let at = 0;
    // `placed` is in the order of offsets, so that one walk finds the first gap.
    for (const other of placed) {
      if (other.from >= slot.to || slot.from >= other.to) continue;
      if (other.offset >= at + size(slot)) break;
      at = Math.max(at, other.offset + size(other));
    }
    slot.offset = at;
    let place = placed.length;
    while (place > 0 && (placed[place - 1] as Slot).offset > at) place--;
    placed.splice(place, 0, slot);
    end = Math.max(end, at + size(slot));
  }
  return end;
}
