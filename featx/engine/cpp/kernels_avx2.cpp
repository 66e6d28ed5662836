// The kernels, compiled for AVX2 and FMA; nothing here may run before `featx_supported` has said yes.
#if defined(__x86_64__)

#include <omp.h>

#include <vector>  // before the instruction set is chosen, as are all that are not our own

#include "in_time.h"
#include "peak.h"
#include "pool.h"
#include "resize.h"
#include "winograd.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
