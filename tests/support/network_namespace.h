// A network namespace for one test: entered by the constructor, left by the destructor. Needs root.
#ifndef SLUICE_TESTS_SUPPORT_NETWORK_NAMESPACE_H_
#define SLUICE_TESTS_SUPPORT_NETWORK_NAMESPACE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

namespace sluice::test {

class NetworkNamespace {
 public:
  NetworkNamespace() : outside_(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    EXPECT_GE(outside_, 0);
    EXPECT_EQ(unshare(CLONE_NEWNET), 0) << std::strerror(errno) << ": this test needs root";
  }
  ~NetworkNamespace() {
    EXPECT_EQ(setns(outside_, CLONE_NEWNET), 0);
    close(outside_);
  }
  NetworkNamespace(const NetworkNamespace&) = delete;
  NetworkNamespace& operator=(const NetworkNamespace&) = delete;

  // One `ip -batch` of these lines; all must succeed.
  static void Ip(const std::string& lines) { EXPECT_EQ(Pipe("ip -batch -", lines), 0) << lines; }
  static void Ip6(const std::string& lines) {
    EXPECT_EQ(Pipe("ip -6 -batch -", lines), 0) << lines;
  }
  // Lines that may fail, which is the kernel's business.
  static void TryIp(const std::string& lines) {
    (void)Pipe("ip -force -batch - >/dev/null 2>&1", lines);
  }
  static void Nft(const std::string& lines) {
    EXPECT_EQ(Pipe("nft -f -", lines), 0) << lines.substr(0, 2000);
  }
  // False when nft or the kernel refused it.
  static bool TryNft(const std::string& lines) {
    return Pipe("nft -f - >/dev/null 2>&1", lines) == 0;
  }
  static void Sysctl(const std::string& name, const std::string& value) {
    const std::string path = "/proc/sys/" + name;
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0) << path;
    EXPECT_EQ(write(fd, value.data(), value.size()), static_cast<ssize_t>(value.size())) << path;
    close(fd);
  }

 private:
  static int Pipe(const char* command, const std::string& input) {
    FILE* pipe = popen(command, "w");
    if (pipe == nullptr) return -1;
    std::fwrite(input.data(), 1, input.size(), pipe);
    return pclose(pipe);
  }

  const int outside_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_NETWORK_NAMESPACE_H_
