// Buffers: device, upload and readback memory, imported host memory, mapping and copying.
#include <cstring>

#include "context.h"

namespace {

constexpr vk::Flags deviceLocal = vk::MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
constexpr vk::Flags hostVisible = vk::MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk::MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr vk::Flags hostCached = vk::MEMORY_PROPERTY_HOST_CACHED_BIT;
constexpr uint32_t kindDevice = 0, kindUpload = 1, kindReadback = 2;

constexpr vk::Flags usage = vk::BUFFER_USAGE_STORAGE_BUFFER_BIT | vk::BUFFER_USAGE_TRANSFER_SRC_BIT | vk::BUFFER_USAGE_TRANSFER_DST_BIT |
                            vk::BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT | vk::BUFFER_USAGE_INDIRECT_BUFFER_BIT;

// First memory type among `bits` with all of `want`; one without `avoid` if there is one. -1: none.
int memoryType(const Context& c, uint32_t bits, vk::Flags want, vk::Flags avoid) {
  for (const bool strict : {true, false}) {
    for (uint32_t i = 0; i < c.heaps.memoryTypeCount; i++) {
      const vk::Flags flags = c.heaps.memoryTypes[i].propertyFlags;
      if ((bits >> i & 1) && (flags & want) == want && !(strict && (flags & avoid))) return static_cast<int>(i);
    }
  }
  return -1;
}

int memoryTypeFor(const Context& c, uint32_t bits, uint32_t kind) {
  int type = -1;
  if (kind == kindDevice) type = memoryType(c, bits, deviceLocal, vk::MEMORY_PROPERTY_HOST_VISIBLE_BIT);
  if (kind == kindReadback) type = memoryType(c, bits, hostVisible | hostCached, deviceLocal);
  if (type < 0 && kind != kindDevice) type = memoryType(c, bits, hostVisible, deviceLocal);
  return type < 0 ? memoryType(c, bits, kind == kindDevice ? 0 : hostVisible, 0) : type;
}

void createHandle(Context& c, BufferObject& b, const void* next) {
  vk::BufferCreateInfo info{};
  info.sType = vk::STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.pNext = next;
  info.size = b.size;
  info.usage = usage;
  c.check(c.fn.CreateBuffer(c.device, &info, nullptr, &b.buffer), "vkCreateBuffer");
}

// Allocates memory (`next`: more about it), binds it and asks for the device address.
void bindMemory(Context& c, BufferObject& b, vk::DeviceSize bytes, uint32_t type, const void* next) {
  vk::MemoryAllocateFlagsInfo flags{vk::STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, next, vk::MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT, 0};
  vk::MemoryAllocateInfo info{vk::STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, &flags, bytes, type};
  c.check(c.fn.AllocateMemory(c.device, &info, nullptr, &b.memory), "vkAllocateMemory");
  c.check(c.fn.BindBufferMemory(c.device, b.buffer, b.memory, 0), "vkBindBufferMemory");
  vk::BufferDeviceAddressInfo address{vk::STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, nullptr, b.buffer};
  b.address = c.fn.GetBufferDeviceAddress(c.device, &address);
}

Napi::Value remember(Context& c, std::shared_ptr<BufferObject> b) {
  for (size_t i = 0; i < c.buffers.size(); i++) {
    if (c.buffers[i]) continue;
    c.buffers[i] = std::move(b);
    return Napi::Number::New(c.env, static_cast<double>(i));
  }
  c.buffers.push_back(std::move(b));
  return Napi::Number::New(c.env, static_cast<double>(c.buffers.size() - 1));
}

struct Span {
  std::shared_ptr<BufferObject> buffer;
  uint64_t offset;
  Bytes bytes;
};

// Arguments (id, offset, typed array) of a copy between a mapped buffer and JavaScript.
Span spanArguments(Context& c, const Info& info) {
  c.requireDevice();
  Span span{c.bufferAt(uint32Argument(info[0], "buffer")), integerArgument(info[1], "offset"), bytesArgument(info[2], "data")};
  if (!span.buffer->mapped) throw Failure{"NOT_MAPPED", "the buffer's memory is not visible to the host"};
  if (span.offset > span.buffer->size || span.bytes.size > span.buffer->size - span.offset)
    throw Failure{"BAD_RANGE", std::to_string(span.bytes.size) + " bytes at " + std::to_string(span.offset) + " of a buffer of " + std::to_string(span.buffer->size)};
  return span;
}

}  // namespace

BufferObject::~BufferObject() {
  if (buffer) context.fn.DestroyBuffer(context.device, buffer, nullptr);
  if (memory) context.fn.FreeMemory(context.device, memory, nullptr);
}

std::shared_ptr<BufferObject> Context::bufferAt(uint32_t id) const {
  if (id >= buffers.size() || !buffers[id]) throw Failure{"BAD_ID", "no buffer " + std::to_string(id)};
  return buffers[id];
}

uint64_t Context::completedValue() {
  uint64_t value = 0;
  check(fn.GetSemaphoreCounterValue(device, timeline, &value), "vkGetSemaphoreCounterValue");
  return value;
}

void Context::collect() {
  if (inFlight.empty() && retired.empty()) return;
  const uint64_t done = completedValue();
  while (!inFlight.empty() && inFlight.front().busyUntil <= done) {
    freeBuffers.push_back(inFlight.front().buffer);
    inFlight.pop_front();
  }
  while (!retired.empty() && retired.front().after <= done) retired.pop_front();
}

Napi::Value createBuffer(Context& c, const Info& info) {
  c.requireDevice();
  const uint64_t bytes = integerArgument(info[0], "bytes");
  const uint32_t kind = uint32Argument(info[1], "kind");
  if (kind > kindReadback) throw Failure{"BAD_ARGUMENT", "kind must be 0, 1 or 2"};
  if (bytes == 0 || bytes > c.maxBufferSize) throw Failure{"BAD_RANGE", "a buffer has 1 to " + std::to_string(c.maxBufferSize) + " bytes, not " + std::to_string(bytes)};
  c.collect();
  auto b = std::make_shared<BufferObject>(c);
  b->size = bytes;
  createHandle(c, *b, nullptr);
  vk::MemoryRequirements needs{};
  c.fn.GetBufferMemoryRequirements(c.device, b->buffer, &needs);
  const int type = memoryTypeFor(c, needs.memoryTypeBits, kind);
  if (type < 0) throw Failure{"VULKAN_FEATURES", "no memory type fits"};
  bindMemory(c, *b, needs.size, static_cast<uint32_t>(type), nullptr);
  if ((c.heaps.memoryTypes[type].propertyFlags & hostVisible) == hostVisible)
    c.check(c.fn.MapMemory(c.device, b->memory, 0, vk::WHOLE_SIZE, 0, &b->mapped), "vkMapMemory");
  return remember(c, std::move(b));
}

Napi::Value importHost(Context& c, const Info& info) {
  c.requireDevice();
  if (!c.importAlignment || !c.fn.GetMemoryHostPointerPropertiesEXT) throw Failure{"VULKAN_FEATURES", "the device cannot import host memory"};
  const Bytes bytes = bytesArgument(info[0], "memory");
  const uint64_t alignment = c.importAlignment;
  if (bytes.size == 0 || reinterpret_cast<uintptr_t>(bytes.data) % alignment || bytes.size % alignment)
    throw Failure{"BAD_RANGE", "imported memory must begin and end at multiples of " + std::to_string(alignment) + " bytes"};
  if (bytes.size > c.maxBufferSize) throw Failure{"BAD_RANGE", "more bytes than one buffer can have"};
  vk::MemoryHostPointerPropertiesEXT pointer{vk::STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT, nullptr, 0};
  c.check(c.fn.GetMemoryHostPointerPropertiesEXT(c.device, vk::EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT, bytes.data, &pointer), "vkGetMemoryHostPointerPropertiesEXT");
  auto b = std::make_shared<BufferObject>(c);
  b->size = bytes.size;
  vk::ExternalMemoryBufferCreateInfo external{vk::STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, nullptr, vk::EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT};
  createHandle(c, *b, &external);
  vk::MemoryRequirements needs{};
  c.fn.GetBufferMemoryRequirements(c.device, b->buffer, &needs);
  const int type = memoryType(c, needs.memoryTypeBits & pointer.memoryTypeBits, 0, 0);
  if (type < 0) throw Failure{"VULKAN_FEATURES", "no memory type fits"};
  vk::ImportMemoryHostPointerInfoEXT import{vk::STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT, nullptr, vk::EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT, bytes.data};
  bindMemory(c, *b, bytes.size, static_cast<uint32_t>(type), &import);
  b->imported = Napi::ObjectReference::New(info[0].As<Napi::Object>(), 1);
  return remember(c, std::move(b));
}

// Views of the buffer become empty at once; memory goes when all work submitted so far is done.
Napi::Value destroyBuffer(Context& c, const Info& info) {
  if (!c.device) throw Failure{"DEVICE_NOT_OPEN", "no device is open"};
  const uint32_t id = uint32Argument(info[0], "buffer");
  auto b = c.bufferAt(id);
  if (!b->view.IsEmpty()) {
    napi_detach_arraybuffer(c.env, b->view.Value());
    b->view.Reset();
  }
  c.retired.push_back({c.submitted, b});
  c.buffers[id].reset();
  b.reset();
  if (!c.lost) c.collect();
  return info.Env().Undefined();
}

Napi::Value bufferAddress(Context& c, const Info& info) {
  c.requireDevice();
  return Napi::BigInt::New(info.Env(), c.bufferAt(uint32Argument(info[0], "buffer"))->address);
}

Napi::Value mapBuffer(Context& c, const Info& info) {
  c.requireDevice();
  auto b = c.bufferAt(uint32Argument(info[0], "buffer"));
  if (!b->mapped) throw Failure{"NOT_MAPPED", "the buffer's memory is not visible to the host"};
  if (!b->view.IsEmpty()) return b->view.Value();
  napi_value view;
  const napi_status status = napi_create_external_arraybuffer(c.env, b->mapped, b->size, [](napi_env, void*, void*) {}, nullptr, &view);
  if (status != napi_ok) throw Failure{"NO_EXTERNAL_BUFFERS", "this runtime does not allow views of outside memory; use readBuffer and writeBuffer"};
  b->view = Napi::ObjectReference::New(Napi::Object(c.env, view), 1);
  return b->view.Value();
}

Napi::Value writeBuffer(Context& c, const Info& info) {
  const Span span = spanArguments(c, info);
  if (span.bytes.size) std::memcpy(static_cast<char*>(span.buffer->mapped) + span.offset, span.bytes.data, span.bytes.size);
  return info.Env().Undefined();
}

Napi::Value readBuffer(Context& c, const Info& info) {
  const Span span = spanArguments(c, info);
  if (span.bytes.size) std::memcpy(span.bytes.data, static_cast<const char*>(span.buffer->mapped) + span.offset, span.bytes.size);
  return info.Env().Undefined();
}
