// Command streams: decoding, submission, recorded commands, waiting, timestamps.
#include <algorithm>

#include "context.h"

namespace {

// The words of a stream; src/backend/vulkan/commands.ts writes them. 64-bit numbers are (low, high).
enum Op : uint32_t {
  opDispatch = 1,           // pipeline x y z n push[n]
  opDispatchIndirect = 2,   // pipeline buffer offset(2) n push[n]
  opBarrier = 3,            // kernels after kernels
  opTransferBarrier = 4,    // kernels and copies after kernels, copies and indirect dispatches
  opIndirectBarrier = 5,    // indirect dispatches after kernels and copies
  opHostBarrier = 6,        // the host reads after kernels and copies
  opCopy = 7,               // source offset(2) target offset(2) bytes(2)
  opFill = 8,               // buffer offset(2) bytes(2) value
  opUpdate = 9,             // buffer offset(2) n words[n]
  opTimestamp = 10,         // query
};

constexpr vk::Flags64 storageReadWrite = vk::ACCESS_2_SHADER_STORAGE_READ_BIT | vk::ACCESS_2_SHADER_STORAGE_WRITE_BIT;
constexpr vk::Flags64 transferReadWrite = vk::ACCESS_2_TRANSFER_READ_BIT | vk::ACCESS_2_TRANSFER_WRITE_BIT;
constexpr vk::Flags64 workStages = vk::PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | vk::PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
constexpr vk::Flags64 workWrites = vk::ACCESS_2_SHADER_STORAGE_WRITE_BIT | vk::ACCESS_2_TRANSFER_WRITE_BIT;

// Decodes a stream into a command buffer. Everything is checked; the first fault throws.
class Decoder {
 public:
  Decoder(Context& c, Commands& commands, const uint32_t* words, size_t count) : c_(c), commands_(commands), words_(words), count_(count) {}

  void run() {
    while (at_ < count_) {
      switch (const uint32_t op = next(); op) {
        case opDispatch: dispatch(); break;
        case opDispatchIndirect: dispatchIndirect(); break;
        case opBarrier: barrier(vk::PIPELINE_STAGE_2_COMPUTE_SHADER_BIT, vk::ACCESS_2_SHADER_STORAGE_WRITE_BIT, vk::PIPELINE_STAGE_2_COMPUTE_SHADER_BIT, storageReadWrite); break;
        case opTransferBarrier: barrier(workStages | vk::PIPELINE_STAGE_2_DRAW_INDIRECT_BIT, workWrites, workStages, storageReadWrite | transferReadWrite); break;
        case opIndirectBarrier: barrier(workStages, workWrites, vk::PIPELINE_STAGE_2_DRAW_INDIRECT_BIT, vk::ACCESS_2_INDIRECT_COMMAND_READ_BIT); break;
        case opHostBarrier: barrier(workStages, workWrites, vk::PIPELINE_STAGE_2_HOST_BIT, vk::ACCESS_2_HOST_READ_BIT); break;
        case opCopy: copy(); break;
        case opFill: fill(); break;
        case opUpdate: update(); break;
        case opTimestamp: timestamp(); break;
        default: throw Failure{"BAD_STREAM", "no operation " + std::to_string(op) + " (word " + std::to_string(at_ - 1) + ")"};
      }
    }
  }

 private:
  Context& c_;
  Commands& commands_;
  const uint32_t* words_;
  size_t count_;
  size_t at_ = 0;
  vk::Pipeline bound_ = nullptr;

  uint32_t next() {
    if (at_ >= count_) throw Failure{"BAD_STREAM", "the stream ends inside an operation"};
    return words_[at_++];
  }
  uint64_t next64() {
    const uint64_t low = next();
    return low | static_cast<uint64_t>(next()) << 32;
  }
  const uint32_t* take(uint32_t n) {
    if (n > count_ - at_) throw Failure{"BAD_STREAM", "the stream ends inside an operation"};
    const uint32_t* p = words_ + at_;
    at_ += n;
    return p;
  }
  BufferObject& buffer() {
    auto b = c_.bufferAt(next());
    commands_.used.push_back(b);
    return *b;
  }
  std::shared_ptr<PipelineObject> bind() {
    auto p = c_.pipelineAt(next());
    if (bound_ != p->pipeline) {
      commands_.used.push_back(p);
      c_.fn.CmdBindPipeline(commands_.buffer, vk::PIPELINE_BIND_POINT_COMPUTE, p->pipeline);
      bound_ = p->pipeline;
    }
    return p;
  }
  void push(const PipelineObject& p) {
    const uint32_t n = next();
    const uint32_t* data = take(n);
    if (static_cast<uint64_t>(n) * 4 != p.pushBytes) throw Failure{"BAD_RANGE", "the pipeline takes " + std::to_string(p.pushBytes) + " bytes of push constants, got " + std::to_string(static_cast<uint64_t>(n) * 4)};
    if (n) c_.fn.CmdPushConstants(commands_.buffer, p.layout, vk::SHADER_STAGE_COMPUTE_BIT, 0, n * 4, data);
  }
  void dispatch() {
    auto p = bind();
    const uint32_t* groups = take(3);
    for (int i = 0; i < 3; i++) {
      if (groups[i] > c_.limits.maxComputeWorkGroupCount[i]) throw Failure{"BAD_RANGE", std::to_string(groups[i]) + " workgroups; the device allows " + std::to_string(c_.limits.maxComputeWorkGroupCount[i])};
    }
    push(*p);
    c_.fn.CmdDispatch(commands_.buffer, groups[0], groups[1], groups[2]);
  }
  void dispatchIndirect() {
    auto p = bind();
    BufferObject& b = buffer();
    const uint64_t offset = next64();
    if (offset % 4) throw Failure{"BAD_RANGE", "the offset of an indirect dispatch must be a multiple of 4"};
    b.requireRange(offset, 12);
    push(*p);
    c_.fn.CmdDispatchIndirect(commands_.buffer, b.buffer, offset);
  }
  void barrier(vk::Flags64 sourceStage, vk::Flags64 sourceAccess, vk::Flags64 targetStage, vk::Flags64 targetAccess) {
    vk::MemoryBarrier2 memory{vk::STRUCTURE_TYPE_MEMORY_BARRIER_2, nullptr, sourceStage, sourceAccess, targetStage, targetAccess};
    vk::DependencyInfo info{};
    info.memoryBarrierCount = 1;
    info.pMemoryBarriers = &memory;
    c_.fn.CmdPipelineBarrier2(commands_.buffer, &info);
  }
  void copy() {
    BufferObject& source = buffer();
    const uint64_t from = next64();
    BufferObject& target = buffer();
    const uint64_t to = next64();
    const uint64_t bytes = next64();
    source.requireRange(from, bytes);
    target.requireRange(to, bytes);
    if (bytes == 0) return;
    if (&source == &target && from < to + bytes && to < from + bytes) throw Failure{"BAD_RANGE", "a copy within one buffer overlaps itself"};
    const vk::BufferCopy region{from, to, bytes};
    c_.fn.CmdCopyBuffer(commands_.buffer, source.buffer, target.buffer, 1, &region);
  }
  void fill() {
    BufferObject& b = buffer();
    const uint64_t offset = next64();
    const uint64_t bytes = next64();
    const uint32_t value = next();
    b.requireRange(offset, bytes);
    if (offset % 4 || bytes % 4) throw Failure{"BAD_RANGE", "a fill must begin and end at multiples of 4 bytes"};
    if (bytes) c_.fn.CmdFillBuffer(commands_.buffer, b.buffer, offset, bytes, value);
  }
  void update() {
    BufferObject& b = buffer();
    const uint64_t offset = next64();
    const uint32_t n = next();
    const uint32_t* data = take(n);
    b.requireRange(offset, static_cast<uint64_t>(n) * 4);
    if (offset % 4 || n > 16384) throw Failure{"BAD_RANGE", "an update takes at most 65536 bytes at a multiple of 4"};
    if (n) c_.fn.CmdUpdateBuffer(commands_.buffer, b.buffer, offset, static_cast<uint64_t>(n) * 4, data);
  }
  void timestamp() {
    const uint32_t query = next();
    if (!c_.queryPool) throw Failure{"VULKAN_FEATURES", "the device has no timestamps"};
    if (query >= queryCount) throw Failure{"BAD_RANGE", "queries are numbered 0 to " + std::to_string(queryCount - 1)};
    c_.fn.CmdResetQueryPool(commands_.buffer, c_.queryPool, query, 1);
    c_.fn.CmdWriteTimestamp2(commands_.buffer, vk::PIPELINE_STAGE_2_ALL_COMMANDS_BIT, c_.queryPool, query);
  }
};

vk::CommandBuffer takeBuffer(Context& c) {
  c.collect();
  if (!c.freeBuffers.empty()) {
    vk::CommandBuffer b = c.freeBuffers.back();
    c.freeBuffers.pop_back();
    return b;
  }
  vk::CommandBufferAllocateInfo info{vk::STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, nullptr, c.commandPool, 0, 1};
  vk::CommandBuffer b = nullptr;
  c.check(c.fn.AllocateCommandBuffers(c.device, &info, &b), "vkAllocateCommandBuffers");
  return b;
}

// Arguments (words, count).
Commands decode(Context& c, const Info& info, vk::Flags usage) {
  c.requireDevice();
  const Napi::Uint32Array words = wordsArgument(info[0], "words");
  const uint64_t count = integerArgument(info[1], "count");
  if (count > words.ElementLength()) throw Failure{"BAD_RANGE", std::to_string(count) + " words of an array of " + std::to_string(words.ElementLength())};
  Commands commands;
  commands.buffer = takeBuffer(c);
  try {
    vk::CommandBufferBeginInfo begin{vk::STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, nullptr, usage, nullptr};
    c.check(c.fn.BeginCommandBuffer(commands.buffer, &begin), "vkBeginCommandBuffer");
    Decoder(c, commands, words.Data(), static_cast<size_t>(count)).run();
    c.check(c.fn.EndCommandBuffer(commands.buffer), "vkEndCommandBuffer");
  } catch (...) {
    // Beginning it again resets it.
    c.freeBuffers.push_back(commands.buffer);
    throw;
  }
  return commands;
}

uint64_t submitBuffer(Context& c, vk::CommandBuffer buffer) {
  if (c.submitted >= c.loseAfter) c.check(vk::ERROR_DEVICE_LOST, "vkQueueSubmit2 (simulated)");
  vk::CommandBufferSubmitInfo commands{vk::STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO, nullptr, buffer, 0};
  vk::SemaphoreSubmitInfo signal{vk::STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO, nullptr, c.timeline, c.submitted + 1, vk::PIPELINE_STAGE_2_ALL_COMMANDS_BIT, 0};
  vk::SubmitInfo2 info{};
  info.commandBufferInfoCount = 1;
  info.pCommandBufferInfos = &commands;
  info.signalSemaphoreInfoCount = 1;
  info.pSignalSemaphoreInfos = &signal;
  c.check(c.fn.QueueSubmit2(c.queue, 1, &info, nullptr), "vkQueueSubmit2");
  return ++c.submitted;
}

vk::Result waitFor(Context& c, uint64_t value, uint64_t nanoseconds) {
  vk::SemaphoreWaitInfo info{vk::STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO, nullptr, 0, 1, &c.timeline, &value};
  return c.fn.WaitSemaphores(c.device, &info, nanoseconds);
}

uint64_t timelineArgument(Context& c, const Napi::Value& argument) {
  c.requireDevice();
  const uint64_t value = integerArgument(argument, "value");
  if (value > c.submitted) throw Failure{"BAD_RANGE", "nothing with the value " + std::to_string(value) + " was submitted"};
  return value;
}

// What the waiting thread hands to the JavaScript thread.
struct Delivery {
  Context* context;
  Napi::Promise::Deferred deferred;
  vk::Result result;
};

void deliver(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<Delivery> delivery(static_cast<Delivery*>(data));
  if (!env) return;
  Napi::HandleScope scope(env);
  Waiter& waiter = delivery->context->waiter;
  if (--waiter.outstanding == 0) napi_unref_threadsafe_function(env, waiter.deliver);
  try {
    const Failure failure = failureOf(delivery->result, "vkWaitSemaphores");
    if (delivery->result >= 0) delivery->deferred.Resolve(Napi::Env(env).Undefined());
    else delivery->deferred.Reject(codedError(env, failure.code, failure.message).Value());
  } catch (...) {}  // The environment is ending: nobody waits any more.
}

// In slices, so that the thread also sees earlier values, the end, and a simulated loss.
constexpr uint64_t slice = 20 * 1000 * 1000;

void waitLoop(Context& c) {
  Waiter& w = c.waiter;
  std::unique_lock<std::mutex> lock(w.mutex);
  for (;;) {
    w.wake.wait(lock, [&w] { return w.stop || !w.waiting.empty(); });
    if (w.stop) return;
    const uint64_t value = w.waiting.begin()->first;
    lock.unlock();
    vk::Result result = c.lost ? vk::ERROR_DEVICE_LOST : waitFor(c, value, slice);
    lock.lock();
    if (w.stop) return;
    if (result == vk::TIMEOUT) continue;
    if (result == vk::ERROR_DEVICE_LOST) c.lost = true;
    while (!w.waiting.empty() && (result < 0 || w.waiting.begin()->first <= value)) {
      auto* delivery = new (std::nothrow) Delivery{&c, w.waiting.begin()->second, result};
      if (delivery && napi_call_threadsafe_function(w.deliver, delivery, napi_tsfn_nonblocking) != napi_ok) delete delivery;
      w.waiting.erase(w.waiting.begin());
    }
  }
}

void startWaiter(Context& c) {
  Waiter& w = c.waiter;
  if (!w.deliver) {
    const napi_status status = napi_create_threadsafe_function(c.env, nullptr, nullptr, Napi::String::New(c.env, "mlx-vk wait"), 0, 1, nullptr, nullptr, nullptr, deliver, &w.deliver);
    if (status != napi_ok) throw Failure{"INTERNAL", "napi_create_threadsafe_function failed"};
    napi_unref_threadsafe_function(c.env, w.deliver);
    renewCleanup(c);
  }
  if (w.thread.joinable()) return;
  w.stop = false;
  w.thread = std::thread([&c] { waitLoop(c); });
}

}  // namespace

void Context::stopWaiter(bool javascript) {
  if (waiter.thread.joinable()) {
    { std::lock_guard<std::mutex> lock(waiter.mutex); waiter.stop = true; }
    waiter.wake.notify_all();
    waiter.thread.join();
  }
  for (auto& entry : waiter.waiting) {
    if (!javascript) break;
    entry.second.Reject(codedError(env, "DEVICE_CLOSED", "the device was closed").Value());
    if (--waiter.outstanding == 0) napi_unref_threadsafe_function(env, waiter.deliver);
  }
  waiter.waiting.clear();
}

Napi::Value submit(Context& c, const Info& info) {
  c.inFlight.push_back(decode(c, info, vk::COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT));
  // If this throws, the value stays 0: the commands are done.
  return number(c.env, static_cast<double>(c.inFlight.back().busyUntil = submitBuffer(c, c.inFlight.back().buffer)));
}

Napi::Value record(Context& c, const Info& info) {
  auto commands = std::make_unique<Commands>(decode(c, info, vk::COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT));
  return number(c.env, remember(c.recorded, std::move(commands)));
}

Napi::Value replay(Context& c, const Info& info) {
  c.requireDevice();
  return number(info.Env(), static_cast<double>(submitBuffer(c, entryAt(c.recorded, uint32Argument(info[0], "commands"), "recorded commands")->buffer)));
}

Napi::Value freeCommands(Context& c, const Info& info) {
  c.requireOpen();
  const uint32_t id = uint32Argument(info[0], "commands");
  Commands& commands = *entryAt(c.recorded, id, "recorded commands");
  commands.busyUntil = c.submitted;
  c.inFlight.push_back(std::move(commands));
  c.recorded[id].reset();
  return info.Env().Undefined();
}

Napi::Value completed(Context& c, const Info& info) {
  c.requireDevice();
  c.collect();
  return number(info.Env(), static_cast<double>(c.completedValue()));
}

Napi::Value waitSync(Context& c, const Info& info) {
  const uint64_t value = timelineArgument(c, info[0]);
  const uint64_t milliseconds = info[1].IsUndefined() ? UINT64_MAX : integerArgument(info[1], "timeout");
  const vk::Result result = waitFor(c, value, milliseconds > UINT64_MAX / 1000000 ? UINT64_MAX : milliseconds * 1000000);
  c.check(result, "vkWaitSemaphores");
  return Napi::Boolean::New(info.Env(), result == vk::SUCCESS);
}

Napi::Value waitAsync(Context& c, const Info& info) {
  const uint64_t value = timelineArgument(c, info[0]);
  startWaiter(c);
  const auto deferred = Napi::Promise::Deferred::New(info.Env());
  { std::lock_guard<std::mutex> lock(c.waiter.mutex); c.waiter.waiting.emplace(value, deferred); }
  if (c.waiter.outstanding++ == 0) napi_ref_threadsafe_function(c.env, c.waiter.deliver);
  c.waiter.wake.notify_all();
  return deferred.Promise();
}

Napi::Value timestamps(Context& c, const Info& info) {
  c.requireDevice();
  const uint32_t first = uint32Argument(info[0], "first");
  const uint32_t count = uint32Argument(info[1], "count");
  if (!c.queryPool) throw Failure{"VULKAN_FEATURES", "the device has no timestamps"};
  if (count == 0 || first >= queryCount || count > queryCount - first) throw Failure{"BAD_RANGE", "queries are numbered 0 to " + std::to_string(queryCount - 1)};
  if (!info[2].IsTypedArray() || info[2].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array || info[2].As<Napi::Float64Array>().ElementLength() < count)
    throw Failure{"BAD_ARGUMENT", "out must be a Float64Array with room for all"};
  std::vector<uint64_t> ticks(count);
  const vk::Result result = c.fn.GetQueryPoolResults(c.device, c.queryPool, first, count, count * sizeof(uint64_t), ticks.data(), sizeof(uint64_t), vk::QUERY_RESULT_64_BIT);
  c.check(result, "vkGetQueryPoolResults");
  if (result != vk::SUCCESS) throw Failure{"NOT_READY", "not all timestamps are written yet"};
  const uint64_t mask = c.timestampBits >= 64 ? UINT64_MAX : (uint64_t{1} << c.timestampBits) - 1;
  Napi::Float64Array out = info[2].As<Napi::Float64Array>();
  for (uint32_t i = 0; i < count; i++) out[i] = static_cast<double>((ticks[i] - ticks[0]) & mask) * c.limits.timestampPeriod;
  return info.Env().Undefined();
}
