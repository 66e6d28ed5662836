// The kernels, compiled for AVX2 and FMA; nothing here may run before `featx_supported` has said yes.
#if defined(__x86_64__)

#include "direct.h"
#include "peak.h"
#include "resize.h"
#include "winograd.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
