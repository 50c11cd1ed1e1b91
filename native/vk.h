// The part of Vulkan's C interface that this addon uses, written by hand from the Vulkan 1.3 specification, so that neither building nor
// running needs a Vulkan SDK. Names are Vulkan's without the prefix. test/vulkan-abi.test.ts checks every size, offset and value against
// the system's vulkan_core.h where there is one.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define VK_CALL __stdcall
#else
#define VK_CALL
#endif

namespace vk {

static_assert(sizeof(void*) == 8, "64-bit systems only");

using Bool32 = uint32_t;
using DeviceSize = uint64_t;
using Flags = uint32_t;
using Flags64 = uint64_t;
using Result = int32_t;
using StructureType = int32_t;

#define HANDLE(name) using name = struct name##Handle*;
HANDLE(Instance)
HANDLE(PhysicalDevice)
HANDLE(Device)
HANDLE(Queue)
HANDLE(CommandBuffer)
HANDLE(Buffer)
HANDLE(DeviceMemory)
HANDLE(ShaderModule)
HANDLE(PipelineLayout)
HANDLE(Pipeline)
HANDLE(PipelineCache)
HANDLE(CommandPool)
HANDLE(QueryPool)
HANDLE(Semaphore)
HANDLE(Fence)
HANDLE(DebugUtilsMessengerEXT)
#undef HANDLE

// values:begin
constexpr Result SUCCESS = 0;
constexpr Result TIMEOUT = 2;
constexpr Result INCOMPLETE = 5;
constexpr Result ERROR_OUT_OF_HOST_MEMORY = -1;
constexpr Result ERROR_OUT_OF_DEVICE_MEMORY = -2;
constexpr Result ERROR_INITIALIZATION_FAILED = -3;
constexpr Result ERROR_DEVICE_LOST = -4;
constexpr Result ERROR_LAYER_NOT_PRESENT = -6;
constexpr Result ERROR_INCOMPATIBLE_DRIVER = -9;
constexpr Result ERROR_TOO_MANY_OBJECTS = -10;

constexpr StructureType STRUCTURE_TYPE_APPLICATION_INFO = 0;
constexpr StructureType STRUCTURE_TYPE_INSTANCE_CREATE_INFO = 1;
constexpr StructureType STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO = 2;
constexpr StructureType STRUCTURE_TYPE_DEVICE_CREATE_INFO = 3;
constexpr StructureType STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO = 5;
constexpr StructureType STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO = 9;
constexpr StructureType STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO = 11;
constexpr StructureType STRUCTURE_TYPE_BUFFER_CREATE_INFO = 12;
constexpr StructureType STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO = 16;
constexpr StructureType STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO = 17;
constexpr StructureType STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO = 18;
constexpr StructureType STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO = 29;
constexpr StructureType STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO = 30;
constexpr StructureType STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO = 39;
constexpr StructureType STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO = 40;
constexpr StructureType STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO = 42;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES = 49;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES = 50;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES = 51;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES = 52;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES = 53;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES = 54;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2 = 1000059000;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2 = 1000059001;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2 = 1000059006;
constexpr StructureType STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO = 1000060000;
constexpr StructureType STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO = 1000072000;
constexpr StructureType STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT = 1000128004;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR = 1000141000;
constexpr StructureType STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT = 1000178000;
constexpr StructureType STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT = 1000178001;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT = 1000178002;
constexpr StructureType STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO = 1000207002;
constexpr StructureType STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO = 1000207004;
constexpr StructureType STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO = 1000225001;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT = 1000237000;
constexpr StructureType STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO = 1000244001;
constexpr StructureType STRUCTURE_TYPE_VALIDATION_FEATURES_EXT = 1000247000;
constexpr StructureType STRUCTURE_TYPE_MEMORY_BARRIER_2 = 1000314000;
constexpr StructureType STRUCTURE_TYPE_DEPENDENCY_INFO = 1000314003;
constexpr StructureType STRUCTURE_TYPE_SUBMIT_INFO_2 = 1000314004;
constexpr StructureType STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO = 1000314005;
constexpr StructureType STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO = 1000314006;
constexpr StructureType STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR = 1000506000;
constexpr StructureType STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR = 1000506001;

constexpr uint32_t API_VERSION_1_3 = (1u << 22) | (3u << 12);
constexpr DeviceSize WHOLE_SIZE = ~0ull;
constexpr Flags QUEUE_GRAPHICS_BIT = 1;
constexpr Flags QUEUE_COMPUTE_BIT = 2;
constexpr Flags MEMORY_PROPERTY_DEVICE_LOCAL_BIT = 1;
constexpr Flags MEMORY_PROPERTY_HOST_VISIBLE_BIT = 2;
constexpr Flags MEMORY_PROPERTY_HOST_COHERENT_BIT = 4;
constexpr Flags MEMORY_PROPERTY_HOST_CACHED_BIT = 8;
constexpr Flags MEMORY_HEAP_DEVICE_LOCAL_BIT = 1;
constexpr Flags MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT = 2;
constexpr Flags EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT = 128;
constexpr Flags BUFFER_USAGE_TRANSFER_SRC_BIT = 1;
constexpr Flags BUFFER_USAGE_TRANSFER_DST_BIT = 2;
constexpr Flags BUFFER_USAGE_STORAGE_BUFFER_BIT = 32;
constexpr Flags BUFFER_USAGE_INDIRECT_BUFFER_BIT = 256;
constexpr Flags BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT = 131072;
constexpr Flags SHADER_STAGE_COMPUTE_BIT = 32;
constexpr int32_t PIPELINE_BIND_POINT_COMPUTE = 1;
constexpr Flags PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT = 2;
constexpr Flags COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT = 2;
constexpr Flags COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT = 1;
constexpr Flags COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT = 4;
constexpr int32_t SEMAPHORE_TYPE_TIMELINE = 1;
constexpr int32_t QUERY_TYPE_TIMESTAMP = 2;
constexpr Flags QUERY_RESULT_64_BIT = 1;
constexpr Flags64 PIPELINE_STAGE_2_DRAW_INDIRECT_BIT = 2;
constexpr Flags64 PIPELINE_STAGE_2_COMPUTE_SHADER_BIT = 0x800;
constexpr Flags64 PIPELINE_STAGE_2_ALL_TRANSFER_BIT = 0x1000;
constexpr Flags64 PIPELINE_STAGE_2_HOST_BIT = 0x4000;
constexpr Flags64 PIPELINE_STAGE_2_ALL_COMMANDS_BIT = 0x10000;
constexpr Flags64 ACCESS_2_INDIRECT_COMMAND_READ_BIT = 1;
constexpr Flags64 ACCESS_2_TRANSFER_READ_BIT = 0x800;
constexpr Flags64 ACCESS_2_TRANSFER_WRITE_BIT = 0x1000;
constexpr Flags64 ACCESS_2_HOST_READ_BIT = 0x2000;
constexpr Flags64 ACCESS_2_SHADER_STORAGE_READ_BIT = 0x200000000ull;
constexpr Flags64 ACCESS_2_SHADER_STORAGE_WRITE_BIT = 0x400000000ull;
constexpr int32_t VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT = 4;
constexpr Flags DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT = 0x100;
constexpr Flags DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT = 0x1000;
constexpr Flags DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT = 1;
constexpr Flags DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT = 2;
constexpr Flags DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT = 4;
// values:end

// Members whose names begin with `gap` stand for those that are not used. Those that are extensible know their own type.
// structs:begin
struct ApplicationInfo { StructureType sType = STRUCTURE_TYPE_APPLICATION_INFO; const void* pNext; const char* pApplicationName; uint32_t applicationVersion; const char* pEngineName; uint32_t engineVersion; uint32_t apiVersion; };
struct InstanceCreateInfo {
  StructureType sType = STRUCTURE_TYPE_INSTANCE_CREATE_INFO; const void* pNext; Flags flags; const ApplicationInfo* pApplicationInfo; uint32_t enabledLayerCount; const char* const* ppEnabledLayerNames;
  uint32_t enabledExtensionCount; const char* const* ppEnabledExtensionNames;
};
struct LayerProperties { char layerName[256]; uint32_t specVersion; uint32_t implementationVersion; char description[256]; };
struct ExtensionProperties { char extensionName[256]; uint32_t specVersion; };
struct ValidationFeaturesEXT {
  StructureType sType = STRUCTURE_TYPE_VALIDATION_FEATURES_EXT; const void* pNext; uint32_t enabledValidationFeatureCount; const int32_t* pEnabledValidationFeatures; uint32_t disabledValidationFeatureCount;
  const int32_t* pDisabledValidationFeatures;
};
struct DebugUtilsMessengerCallbackDataEXT { StructureType sType; const void* pNext; Flags flags; const char* pMessageIdName; int32_t messageIdNumber; const char* pMessage; uint64_t gapRest[6]; };
struct DebugUtilsMessengerCreateInfoEXT {
  StructureType sType = STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT; const void* pNext; Flags flags; Flags messageSeverity; Flags messageType;
  Bool32 (VK_CALL *pfnUserCallback)(Flags, Flags, const DebugUtilsMessengerCallbackDataEXT*, void*); void* pUserData;
};
struct PhysicalDeviceLimits {
  uint32_t gapFirst[7]; uint32_t maxStorageBufferRange; uint32_t maxPushConstantsSize; uint32_t maxMemoryAllocationCount; uint32_t gapDescriptors[44]; uint32_t maxComputeSharedMemorySize;
  uint32_t maxComputeWorkGroupCount[3]; uint32_t maxComputeWorkGroupInvocations; uint32_t maxComputeWorkGroupSize[3]; uint32_t gapGraphics[20]; DeviceSize minStorageBufferOffsetAlignment;
  uint32_t gapImages[22]; float timestampPeriod; uint32_t gapLast[19];
};
struct PhysicalDeviceProperties {
  uint32_t apiVersion; uint32_t driverVersion; uint32_t vendorID; uint32_t deviceID; int32_t deviceType; char deviceName[256]; uint8_t pipelineCacheUUID[16]; PhysicalDeviceLimits limits;
  uint32_t gapSparse[6];
};
struct PhysicalDeviceProperties2 { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2; void* pNext; PhysicalDeviceProperties properties; };
struct PhysicalDeviceVulkan11Properties {
  StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES; void* pNext; uint8_t deviceUUID[16]; uint32_t gapIds[8]; uint32_t subgroupSize; Flags subgroupSupportedStages; Flags subgroupSupportedOperations; uint32_t gapViews[7];
  DeviceSize maxMemoryAllocationSize;
};
struct PhysicalDeviceVulkan12Properties {
  StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES; void* pNext; int32_t driverID; char driverName[256]; char driverInfo[256]; uint32_t gapControls[4]; Bool32 shaderSignedZeroInfNanPreserveFloat32;
  Bool32 shaderSignedZeroInfNanPreserveFloat64; Bool32 gapDenorm16; Bool32 shaderDenormPreserveFloat32; Bool32 shaderDenormPreserveFloat64; uint32_t gapRest[42];
};
struct PhysicalDeviceVulkan13Properties { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES; void* pNext; uint32_t minSubgroupSize; uint32_t maxSubgroupSize; uint32_t gapDots[46]; DeviceSize maxBufferSize; };
struct PhysicalDeviceExternalMemoryHostPropertiesEXT { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT; void* pNext; DeviceSize minImportedHostPointerAlignment; };
struct PhysicalDeviceFeatures { Bool32 gapFirst[39]; Bool32 shaderFloat64; Bool32 shaderInt64; Bool32 shaderInt16; Bool32 gapRest[13]; };
struct PhysicalDeviceFeatures2 { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2; void* pNext; PhysicalDeviceFeatures features; };
struct PhysicalDeviceVulkan11Features { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES; void* pNext; Bool32 storageBuffer16BitAccess; Bool32 uniformAndStorageBuffer16BitAccess; Bool32 gapRest[10]; };
struct PhysicalDeviceVulkan12Features {
  StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES; void* pNext; Bool32 gapFirst[2]; Bool32 storageBuffer8BitAccess; Bool32 uniformAndStorageBuffer8BitAccess; Bool32 gapAtomics[3]; Bool32 shaderFloat16; Bool32 shaderInt8;
  Bool32 gapIndexing[22]; Bool32 scalarBlockLayout; Bool32 gapLayouts[2]; Bool32 shaderSubgroupExtendedTypes; Bool32 gapDepth; Bool32 hostQueryReset; Bool32 timelineSemaphore;
  Bool32 bufferDeviceAddress; Bool32 gapCapture[2]; Bool32 vulkanMemoryModel; Bool32 vulkanMemoryModelDeviceScope; Bool32 gapRest[5];
};
struct PhysicalDeviceVulkan13Features {
  StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES; void* pNext; Bool32 gapFirst[7]; Bool32 subgroupSizeControl; Bool32 computeFullSubgroups; Bool32 synchronization2; Bool32 gapTextures[3]; Bool32 shaderIntegerDotProduct;
  Bool32 maintenance4; Bool32 gapPadding;
};
struct PhysicalDeviceCooperativeMatrixFeaturesKHR { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR; void* pNext; Bool32 cooperativeMatrix; Bool32 cooperativeMatrixRobustBufferAccess; };
struct PhysicalDeviceShaderBfloat16FeaturesKHR {
  StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR; void* pNext; Bool32 shaderBFloat16Type; Bool32 shaderBFloat16DotProduct; Bool32 shaderBFloat16CooperativeMatrix;
};
struct CooperativeMatrixPropertiesKHR {
  StructureType sType = STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR; void* pNext; uint32_t MSize; uint32_t NSize; uint32_t KSize; int32_t AType; int32_t BType; int32_t CType; int32_t ResultType; Bool32 saturatingAccumulation; int32_t scope;
};
struct MemoryType { Flags propertyFlags; uint32_t heapIndex; };
struct MemoryHeap { DeviceSize size; Flags flags; };
struct PhysicalDeviceMemoryProperties { uint32_t memoryTypeCount; MemoryType memoryTypes[32]; uint32_t memoryHeapCount; MemoryHeap memoryHeaps[16]; };
struct PhysicalDeviceMemoryProperties2 { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2; void* pNext; PhysicalDeviceMemoryProperties memoryProperties; };
struct PhysicalDeviceMemoryBudgetPropertiesEXT { StructureType sType = STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT; void* pNext; DeviceSize heapBudget[16]; DeviceSize heapUsage[16]; };
struct QueueFamilyProperties { Flags queueFlags; uint32_t queueCount; uint32_t timestampValidBits; uint32_t gapGranularity[3]; };
struct DeviceQueueCreateInfo { StructureType sType = STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO; const void* pNext; Flags flags; uint32_t queueFamilyIndex; uint32_t queueCount; const float* pQueuePriorities; };
struct DeviceCreateInfo {
  StructureType sType = STRUCTURE_TYPE_DEVICE_CREATE_INFO; const void* pNext; Flags flags; uint32_t queueCreateInfoCount; const DeviceQueueCreateInfo* pQueueCreateInfos; uint32_t enabledLayerCount;
  const char* const* ppEnabledLayerNames; uint32_t enabledExtensionCount; const char* const* ppEnabledExtensionNames; const PhysicalDeviceFeatures* pEnabledFeatures;
};
struct MemoryAllocateInfo { StructureType sType = STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO; const void* pNext; DeviceSize allocationSize; uint32_t memoryTypeIndex; };
struct MemoryAllocateFlagsInfo { StructureType sType = STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO; const void* pNext; Flags flags; uint32_t deviceMask; };
struct ImportMemoryHostPointerInfoEXT { StructureType sType = STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT; const void* pNext; Flags handleType; void* pHostPointer; };
struct MemoryHostPointerPropertiesEXT { StructureType sType = STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT; void* pNext; uint32_t memoryTypeBits; };
struct MemoryRequirements { DeviceSize size; DeviceSize alignment; uint32_t memoryTypeBits; };
struct BufferCreateInfo { StructureType sType = STRUCTURE_TYPE_BUFFER_CREATE_INFO; const void* pNext; Flags flags; DeviceSize size; Flags usage; int32_t sharingMode; uint32_t queueFamilyIndexCount; const uint32_t* pQueueFamilyIndices; };
struct ExternalMemoryBufferCreateInfo { StructureType sType = STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO; const void* pNext; Flags handleTypes; };
struct BufferDeviceAddressInfo { StructureType sType = STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO; const void* pNext; Buffer buffer; };
struct ShaderModuleCreateInfo { StructureType sType = STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO; const void* pNext; Flags flags; size_t codeSize; const uint32_t* pCode; };
struct PushConstantRange { Flags stageFlags; uint32_t offset; uint32_t size; };
struct PipelineLayoutCreateInfo { StructureType sType = STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO; const void* pNext; Flags flags; uint32_t setLayoutCount; const void* pSetLayouts; uint32_t pushConstantRangeCount; const PushConstantRange* pPushConstantRanges; };
struct SpecializationMapEntry { uint32_t constantID; uint32_t offset; size_t size; };
struct SpecializationInfo { uint32_t mapEntryCount; const SpecializationMapEntry* pMapEntries; size_t dataSize; const void* pData; };
struct PipelineShaderStageRequiredSubgroupSizeCreateInfo { StructureType sType = STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO; void* pNext; uint32_t requiredSubgroupSize; };
struct PipelineShaderStageCreateInfo {
  StructureType sType = STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO; const void* pNext; Flags flags; Flags stage; ShaderModule module; const char* pName; const SpecializationInfo* pSpecializationInfo;
};
struct ComputePipelineCreateInfo {
  StructureType sType = STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO; const void* pNext; Flags flags; PipelineShaderStageCreateInfo stage; PipelineLayout layout; Pipeline basePipelineHandle; int32_t basePipelineIndex;
};
struct PipelineCacheCreateInfo { StructureType sType = STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO; const void* pNext; Flags flags; size_t initialDataSize; const void* pInitialData; };
struct CommandPoolCreateInfo { StructureType sType = STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO; const void* pNext; Flags flags; uint32_t queueFamilyIndex; };
struct CommandBufferAllocateInfo { StructureType sType = STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO; const void* pNext; CommandPool commandPool; int32_t level; uint32_t commandBufferCount; };
struct CommandBufferBeginInfo { StructureType sType = STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO; const void* pNext; Flags flags; const void* pInheritanceInfo; };
struct MemoryBarrier2 { StructureType sType = STRUCTURE_TYPE_MEMORY_BARRIER_2; const void* pNext; Flags64 srcStageMask; Flags64 srcAccessMask; Flags64 dstStageMask; Flags64 dstAccessMask; };
struct DependencyInfo {
  StructureType sType = STRUCTURE_TYPE_DEPENDENCY_INFO; const void* pNext; Flags dependencyFlags; uint32_t memoryBarrierCount; const MemoryBarrier2* pMemoryBarriers; uint32_t bufferMemoryBarrierCount;
  const void* pBufferMemoryBarriers; uint32_t imageMemoryBarrierCount; const void* pImageMemoryBarriers;
};
struct BufferCopy { DeviceSize srcOffset; DeviceSize dstOffset; DeviceSize size; };
struct SemaphoreTypeCreateInfo { StructureType sType = STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO; const void* pNext; int32_t semaphoreType; uint64_t initialValue; };
struct SemaphoreCreateInfo { StructureType sType = STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO; const void* pNext; Flags flags; };
struct SemaphoreWaitInfo { StructureType sType = STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO; const void* pNext; Flags flags; uint32_t semaphoreCount; const Semaphore* pSemaphores; const uint64_t* pValues; };
struct SemaphoreSubmitInfo { StructureType sType = STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO; const void* pNext; Semaphore semaphore; uint64_t value; Flags64 stageMask; uint32_t deviceIndex; };
struct CommandBufferSubmitInfo { StructureType sType = STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO; const void* pNext; CommandBuffer commandBuffer; uint32_t deviceMask; };
struct SubmitInfo2 {
  StructureType sType = STRUCTURE_TYPE_SUBMIT_INFO_2; const void* pNext; Flags flags; uint32_t waitSemaphoreInfoCount; const SemaphoreSubmitInfo* pWaitSemaphoreInfos; uint32_t commandBufferInfoCount;
  const CommandBufferSubmitInfo* pCommandBufferInfos; uint32_t signalSemaphoreInfoCount; const SemaphoreSubmitInfo* pSignalSemaphoreInfos;
};
struct QueryPoolCreateInfo { StructureType sType = STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO; const void* pNext; Flags flags; int32_t queryType; uint32_t queryCount; Flags pipelineStatistics; };
// structs:end

using VoidFunction = void (VK_CALL *)();
using GetInstanceProcAddrFunction = VoidFunction (VK_CALL *)(Instance, const char*);

// X(name, result, arguments). `const void*` before a result pointer is the allocator, always null.
#define VK_GLOBAL_FUNCTIONS(X) \
  X(CreateInstance, Result, (const InstanceCreateInfo*, const void*, Instance*)) \
  X(EnumerateInstanceVersion, Result, (uint32_t*)) \
  X(EnumerateInstanceLayerProperties, Result, (uint32_t*, LayerProperties*))

#define VK_INSTANCE_FUNCTIONS(X) \
  X(DestroyInstance, void, (Instance, const void*)) \
  X(EnumeratePhysicalDevices, Result, (Instance, uint32_t*, PhysicalDevice*)) \
  X(GetPhysicalDeviceProperties2, void, (PhysicalDevice, PhysicalDeviceProperties2*)) \
  X(GetPhysicalDeviceFeatures2, void, (PhysicalDevice, PhysicalDeviceFeatures2*)) \
  X(GetPhysicalDeviceMemoryProperties2, void, (PhysicalDevice, PhysicalDeviceMemoryProperties2*)) \
  X(GetPhysicalDeviceQueueFamilyProperties, void, (PhysicalDevice, uint32_t*, QueueFamilyProperties*)) \
  X(EnumerateDeviceExtensionProperties, Result, (PhysicalDevice, const char*, uint32_t*, ExtensionProperties*)) \
  X(CreateDevice, Result, (PhysicalDevice, const DeviceCreateInfo*, const void*, Device*)) \
  X(GetDeviceProcAddr, VoidFunction, (Device, const char*))

#define VK_INSTANCE_EXTENSION_FUNCTIONS(X) \
  X(CreateDebugUtilsMessengerEXT, Result, (Instance, const DebugUtilsMessengerCreateInfoEXT*, const void*, DebugUtilsMessengerEXT*)) \
  X(DestroyDebugUtilsMessengerEXT, void, (Instance, DebugUtilsMessengerEXT, const void*)) \
  X(GetPhysicalDeviceCooperativeMatrixPropertiesKHR, Result, (PhysicalDevice, uint32_t*, CooperativeMatrixPropertiesKHR*))

#define VK_DEVICE_FUNCTIONS(X) \
  X(DestroyDevice, void, (Device, const void*)) \
  X(GetDeviceQueue, void, (Device, uint32_t, uint32_t, Queue*)) \
  X(DeviceWaitIdle, Result, (Device)) \
  X(CreateBuffer, Result, (Device, const BufferCreateInfo*, const void*, Buffer*)) \
  X(DestroyBuffer, void, (Device, Buffer, const void*)) \
  X(GetBufferMemoryRequirements, void, (Device, Buffer, MemoryRequirements*)) \
  X(GetBufferDeviceAddress, uint64_t, (Device, const BufferDeviceAddressInfo*)) \
  X(AllocateMemory, Result, (Device, const MemoryAllocateInfo*, const void*, DeviceMemory*)) \
  X(FreeMemory, void, (Device, DeviceMemory, const void*)) \
  X(BindBufferMemory, Result, (Device, Buffer, DeviceMemory, DeviceSize)) \
  X(MapMemory, Result, (Device, DeviceMemory, DeviceSize, DeviceSize, Flags, void**)) \
  X(CreateShaderModule, Result, (Device, const ShaderModuleCreateInfo*, const void*, ShaderModule*)) \
  X(DestroyShaderModule, void, (Device, ShaderModule, const void*)) \
  X(CreatePipelineLayout, Result, (Device, const PipelineLayoutCreateInfo*, const void*, PipelineLayout*)) \
  X(DestroyPipelineLayout, void, (Device, PipelineLayout, const void*)) \
  X(CreateComputePipelines, Result, (Device, PipelineCache, uint32_t, const ComputePipelineCreateInfo*, const void*, Pipeline*)) \
  X(DestroyPipeline, void, (Device, Pipeline, const void*)) \
  X(CreatePipelineCache, Result, (Device, const PipelineCacheCreateInfo*, const void*, PipelineCache*)) \
  X(GetPipelineCacheData, Result, (Device, PipelineCache, size_t*, void*)) \
  X(DestroyPipelineCache, void, (Device, PipelineCache, const void*)) \
  X(CreateCommandPool, Result, (Device, const CommandPoolCreateInfo*, const void*, CommandPool*)) \
  X(DestroyCommandPool, void, (Device, CommandPool, const void*)) \
  X(AllocateCommandBuffers, Result, (Device, const CommandBufferAllocateInfo*, CommandBuffer*)) \
  X(BeginCommandBuffer, Result, (CommandBuffer, const CommandBufferBeginInfo*)) \
  X(EndCommandBuffer, Result, (CommandBuffer)) \
  X(CmdBindPipeline, void, (CommandBuffer, int32_t, Pipeline)) \
  X(CmdPushConstants, void, (CommandBuffer, PipelineLayout, Flags, uint32_t, uint32_t, const void*)) \
  X(CmdDispatch, void, (CommandBuffer, uint32_t, uint32_t, uint32_t)) \
  X(CmdDispatchIndirect, void, (CommandBuffer, Buffer, DeviceSize)) \
  X(CmdPipelineBarrier2, void, (CommandBuffer, const DependencyInfo*)) \
  X(CmdCopyBuffer, void, (CommandBuffer, Buffer, Buffer, uint32_t, const BufferCopy*)) \
  X(CmdFillBuffer, void, (CommandBuffer, Buffer, DeviceSize, DeviceSize, uint32_t)) \
  X(CmdUpdateBuffer, void, (CommandBuffer, Buffer, DeviceSize, DeviceSize, const void*)) \
  X(CmdResetQueryPool, void, (CommandBuffer, QueryPool, uint32_t, uint32_t)) \
  X(CmdWriteTimestamp2, void, (CommandBuffer, Flags64, QueryPool, uint32_t)) \
  X(CreateQueryPool, Result, (Device, const QueryPoolCreateInfo*, const void*, QueryPool*)) \
  X(DestroyQueryPool, void, (Device, QueryPool, const void*)) \
  X(GetQueryPoolResults, Result, (Device, QueryPool, uint32_t, uint32_t, size_t, void*, DeviceSize, Flags)) \
  X(QueueSubmit2, Result, (Queue, uint32_t, const SubmitInfo2*, Fence)) \
  X(CreateSemaphore, Result, (Device, const SemaphoreCreateInfo*, const void*, Semaphore*)) \
  X(DestroySemaphore, void, (Device, Semaphore, const void*)) \
  X(WaitSemaphores, Result, (Device, const SemaphoreWaitInfo*, uint64_t)) \
  X(GetSemaphoreCounterValue, Result, (Device, Semaphore, uint64_t*))

#define VK_DEVICE_EXTENSION_FUNCTIONS(X) \
  X(GetMemoryHostPointerPropertiesEXT, Result, (Device, Flags, const void*, MemoryHostPointerPropertiesEXT*))

// Entry points of one instance and one device, resolved at run time.
struct Functions {
  GetInstanceProcAddrFunction GetInstanceProcAddr = nullptr;
#define X(name, result, arguments) result(VK_CALL* name) arguments = nullptr;
  VK_GLOBAL_FUNCTIONS(X) VK_INSTANCE_FUNCTIONS(X) VK_INSTANCE_EXTENSION_FUNCTIONS(X) VK_DEVICE_FUNCTIONS(X) VK_DEVICE_EXTENSION_FUNCTIONS(X)
#undef X
};

}  // namespace vk
