// The version, as `sluice --version`, the status and sluice_build_info tell it. From CMake's
// project().
#ifndef SLUICE_APP_VERSION_H_
#define SLUICE_APP_VERSION_H_

namespace sluice::app {

inline constexpr char kVersion[] = SLUICE_VERSION;

}  // namespace sluice::app

#endif  // SLUICE_APP_VERSION_H_
