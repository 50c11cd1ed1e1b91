/** Devices and streams. Work on one stream runs in the order in which it was evaluated. */
import { env } from "./env.ts";
import { opError } from "./error.ts";

export type DeviceType = "cpu" | "gpu";

export class Device {
  readonly type: DeviceType;
  readonly index: number;
  constructor(type: DeviceType, index = 0) {
    this.type = type;
    this.index = index;
  }
  toString(): string {
    return `Device(${this.type}, ${this.index})`;
  }
}

export class Stream {
  readonly index: number;
  readonly device: Device;
  constructor(index: number, device: Device) {
    this.index = index;
    this.device = device;
  }
  toString(): string {
    return `Stream(${this.device}, ${this.index})`;
  }
}

export const cpu = new Device("cpu");
export const gpu = new Device("gpu");
export type StreamOrDevice = Stream | Device | DeviceType;

let streamCount = 0;
const defaults = new Map<DeviceType, Stream>();
/** Backends that work in this process, with the reason when one does not. Filled by the backends. */
export const backends = new Map<DeviceType, { readonly available: boolean; readonly reason?: string }>();
/** Undefined until first asked for: then DEVICE or TARGET_DEVICE decide. */
let chosenDevice: Device | undefined;

function currentDevice(): Device {
  chosenDevice ??= deviceFromEnvironment();
  return chosenDevice;
}
function deviceFromEnvironment(): Device {
  const name = env("DEVICE") || env("TARGET_DEVICE");
  if (name === "" || name === "cpu") return cpu;
  if (name !== "gpu") throw opError("device", `DEVICE must be cpu or gpu, got ${JSON.stringify(name)}`);
  return requireDevice("device", "gpu");
}

const typeOf = (d: Device | DeviceType): DeviceType => (d instanceof Device ? d.type : d);
const deviceOf = (d: Device | DeviceType): Device => (d instanceof Device ? d : d === "gpu" ? gpu : cpu);

function requireDevice(op: string, d: Device | DeviceType): Device {
  const device = deviceOf(d);
  const state = backends.get(device.type);
  if (!state?.available) throw opError(op, `the ${device.type} device is not available: ${state?.reason ?? "no backend"}`);
  return device;
}

export const isStreamOrDevice = (x: unknown): x is StreamOrDevice => x instanceof Stream || x instanceof Device || x === "cpu" || x === "gpu";

/** True when work can run on this device. */
export const isAvailable = (d: Device | DeviceType): boolean => backends.get(typeOf(d))?.available === true;

export const defaultDevice = (): Device => currentDevice();

/** Makes a device the one that ops without a stream argument use. Throws when it is not available. */
export function setDefaultDevice(d: Device | DeviceType): void {
  chosenDevice = requireDevice("setDefaultDevice", d);
}

/** A further stream on a device. */
export function newStream(d: Device | DeviceType): Stream {
  return new Stream(streamCount++, requireDevice("newStream", d));
}

/** The stream that ops on a device use when none is named. */
export function defaultStream(d: Device | DeviceType = currentDevice()): Stream {
  const device = requireDevice("defaultStream", d);
  let s = defaults.get(device.type);
  if (!s) {
    s = new Stream(streamCount++, device);
    defaults.set(device.type, s);
  }
  return s;
}

export function setDefaultStream(s: Stream): void {
  defaults.set(s.device.type, s);
}

/** Forgets the default streams: the next use of a device makes a new one. Streams that are still held go on working. */
export const forgetStreams = (): void => defaults.clear();

/** The stream meant by a stream, a device, a device type, or nothing (the current default). */
export function toStream(s?: StreamOrDevice | null): Stream {
  if (s === undefined || s === null) return defaultStream(currentDevice());
  return s instanceof Stream ? s : defaultStream(s);
}

/** Makes a stream (or device) the default until the returned object is disposed: `using scope = mx.stream(s)`. */
export function stream(s: StreamOrDevice): Disposable {
  const target = toStream(s);
  const device = currentDevice();
  const before = defaultStream(target.device);
  chosenDevice = target.device;
  defaults.set(target.device.type, target);
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    chosenDevice = device;
    defaults.set(target.device.type, before);
  };
  return { [Symbol.dispose ?? Symbol.for("nodejs.dispose")]: close } as Disposable;
}
