// State of one environment (main thread or worker): at most one open device, and tables of the objects that JavaScript knows by number.
#pragma once
#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vk.h"

// An error for JavaScript: `code` is stable, `message` is for people.
struct Failure {
  std::string code;
  std::string message;
};

// What a negative result of a function means.
Failure failureOf(vk::Result result, const char* what);

struct Context;

struct BufferObject {
  Context& context;
  vk::Buffer buffer = nullptr;
  vk::DeviceMemory memory = nullptr;
  vk::DeviceSize size = 0;
  uint64_t address = 0;
  void* mapped = nullptr;
  // The array over imported memory, and the ArrayBuffer over mapped memory.
  Napi::ObjectReference imported;
  Napi::ObjectReference view;
  explicit BufferObject(Context& c) : context(c) {}
  ~BufferObject();
  // Throws for bytes outside of the buffer.
  void requireRange(uint64_t offset, uint64_t bytes) const;
};

struct PipelineSpec {
  std::vector<uint32_t> code;
  std::vector<uint32_t> constants;
  uint32_t pushBytes = 0;
  uint32_t subgroupSize = 0;
};

struct PipelineObject {
  Context& context;
  vk::Pipeline pipeline = nullptr;
  vk::PipelineLayout layout = nullptr;
  uint32_t pushBytes = 0;
  bool ready = false;
  explicit PipelineObject(Context& c) : context(c) {}
  ~PipelineObject() { release(); }
  void release();
};

// Commands, or no commands and something that JavaScript destroyed: what is named in `used` lives until the timeline reaches `busyUntil`.
struct Commands {
  vk::CommandBuffer buffer = nullptr;
  uint64_t busyUntil = 0;
  std::vector<std::shared_ptr<void>> used;
};

// Resolves promises when the timeline reaches their values, from one thread of its own.
struct Waiter {
  std::thread thread;
  std::mutex mutex;
  std::condition_variable wake;
  std::multimap<uint64_t, Napi::Promise::Deferred> waiting;
  bool stop = false;
  napi_threadsafe_function deliver = nullptr;
  uint32_t outstanding = 0;
};

// Tables of objects that JavaScript knows by their place.
template <class Pointer>
Pointer& entryAt(std::vector<Pointer>& table, uint32_t id, const char* what) {
  if (id >= table.size() || !table[id]) throw Failure{"BAD_ID", "no " + std::string(what) + " " + std::to_string(id)};
  return table[id];
}

// Into the first free place.
template <class Pointer>
uint32_t remember(std::vector<Pointer>& table, Pointer object) {
  size_t i = 0;
  while (i < table.size() && table[i]) i++;
  if (i == table.size()) table.emplace_back();
  table[i] = std::move(object);
  return static_cast<uint32_t>(i);
}

struct Context {
  explicit Context(Napi::Env e) : env(e) {}

  Napi::Env env;
  vk::Functions fn;
  void* library = nullptr;
  std::vector<std::string> librariesBefore;
  vk::Instance instance = nullptr;
  vk::DebugUtilsMessengerEXT messenger = nullptr;
  vk::PhysicalDevice physical = nullptr;
  vk::Device device = nullptr;
  vk::Queue queue = nullptr;
  vk::CommandPool commandPool = nullptr;
  vk::PipelineCache pipelineCache = nullptr;
  vk::QueryPool queryPool = nullptr;
  vk::Semaphore timeline = nullptr;
  vk::PhysicalDeviceMemoryProperties heaps{};
  vk::PhysicalDeviceLimits limits{};
  vk::DeviceSize maxBufferSize = 0;
  vk::DeviceSize importAlignment = 0;
  uint32_t timestampBits = 0;
  uint32_t minSubgroup = 0, maxSubgroup = 0;
  bool subgroupControl = false, fullSubgroups = false, budget = false;

  std::vector<std::shared_ptr<BufferObject>> buffers;
  std::vector<std::shared_ptr<PipelineObject>> pipelines;
  std::vector<std::unique_ptr<Commands>> recorded;
  std::deque<Commands> inFlight;
  std::vector<vk::CommandBuffer> freeBuffers;
  uint64_t submitted = 0;
  // Simulated loss: this many submissions succeed.
  uint64_t loseAfter = UINT64_MAX;
  std::atomic<bool> lost{false};

  // Guards `compiling`, and `generation` for pool threads: only the JavaScript thread changes it.
  std::mutex compileMutex;
  std::condition_variable compileDone;
  uint64_t generation = 0;
  uint32_t compiling = 0;

  std::mutex messageMutex;
  std::vector<std::string> messages;
  Waiter waiter;

  // Throws when no device is open.
  void requireOpen() const;
  // ... or the device is lost.
  void requireDevice() const;
  // Destroys an object of the device, if there is one.
  template <class Handle, class Destroy>
  void drop(Handle& handle, Destroy destroy) {
    if (handle && destroy) destroy(device, handle, nullptr);
    handle = nullptr;
  }
  // Throws for an error code; `what` is the function that gave it.
  void check(vk::Result result, const char* what);
  uint64_t completedValue();
  // Frees what no submitted work uses any more.
  void collect();
  // Drops an object once the work submitted so far is done.
  void retire(std::shared_ptr<void> object);
  // Waits for the device and destroys everything on it. `javascript`: promises may be settled.
  void close(bool javascript);
  std::shared_ptr<BufferObject> bufferAt(uint32_t id) { return entryAt(buffers, id, "buffer"); }
  std::shared_ptr<PipelineObject> pipelineAt(uint32_t id);
  void stopWaiter(bool javascript);
};

constexpr uint32_t queryCount = 4096;
// Memory on the device that the host can write.
constexpr vk::Flags directMemory = vk::MEMORY_PROPERTY_DEVICE_LOCAL_BIT | vk::MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk::MEMORY_PROPERTY_HOST_COHERENT_BIT;
// First memory type among `bits` with all of `want` and nothing special; one without `avoid` if there is one. -1: none.
int memoryType(const Context& c, uint32_t bits, vk::Flags want, vk::Flags avoid);

// Arguments of JavaScript calls; each throws BAD_ARGUMENT naming `what`.
uint32_t uint32Argument(const Napi::Value& value, const char* what);
uint64_t integerArgument(const Napi::Value& value, const char* what);
struct Bytes { uint8_t* data; size_t size; };
Bytes bytesArgument(const Napi::Value& value, const char* what);
Napi::Uint32Array wordsArgument(const Napi::Value& value, const char* what);
// Keeps the end of the environment's device in front of what was added to its end since.
void renewCleanup(Context& context);
Napi::Error codedError(Napi::Env env, const std::string& code, const std::string& message);

using Info = Napi::CallbackInfo;
inline Napi::Value number(Napi::Env env, double x) { return Napi::Number::New(env, x); }

// What JavaScript sees; src/backend/vulkan/addon.ts has the types.
#define EXPORTED(X) \
  X(probe) X(openDevice) X(closeDevice) X(memoryInfo) X(createBuffer) X(importHost) X(destroyBuffer) X(bufferAddress) \
  X(mapBuffer) X(writeBuffer) X(readBuffer) X(createPipeline) X(createPipelineAsync) X(destroyPipeline) X(pipelineCacheData) X(submit) \
  X(record) X(replay) X(freeCommands) X(completed) X(waitSync) X(waitAsync) X(timestamps) X(takeMessages)
#define X(name) Napi::Value name(Context&, const Info&);
EXPORTED(X)
#undef X
