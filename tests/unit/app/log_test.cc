#include "app/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "app/notify.h"
#include "unit/app/fake_views.h"

namespace sluice::app {
namespace {

using ::testing::MatchesRegex;

std::string Logged(LogLevel level, const std::function<void()>& body) {
  ::testing::internal::CaptureStderr();
  InitLogging(level);
  body();
  return ::testing::internal::GetCapturedStderr();
}

TEST(LogTest, LinesHaveTimeAndLevel) {
  EXPECT_THAT(Logged(LogLevel::kInfo, [] { LogInfo("{} interfaces on {}", 2, "host"); }),
              MatchesRegex("[0-9-]+ [0-9:.]+ info: 2 interfaces on host\n"));
  EXPECT_THAT(Logged(LogLevel::kInfo, [] { LogLine(LogLevel::kError, "100% {}"); }),
              MatchesRegex(".* error: 100% \\{\\}\n"));
}

TEST(LogTest, LessThanTheLevelIsSilent) {
  EXPECT_EQ(Logged(LogLevel::kWarning,
                   [] {
                     LogInfo("no");
                     LogDebug("no");
                   }),
            "");
  EXPECT_EQ(Logged(LogLevel::kOff, [] { LogError("no"); }), "");
  EXPECT_THAT(Logged(LogLevel::kDebug,
                     [] {
                       LogDebug("d");
                       LogWarning("w");
                     }),
              MatchesRegex(".* debug: d\n.* warning: w\n"));
}

TEST(LogTest, TheJournalGetsPrioritiesInsteadOfTimes) {
  ::testing::internal::CaptureStderr();
  struct stat info {};
  ASSERT_EQ(fstat(STDERR_FILENO, &info), 0);
  const std::string stream = std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino);
  ASSERT_TRUE(IsJournalStream(stream.c_str(), STDERR_FILENO));
  setenv("JOURNAL_STREAM", stream.c_str(), 1);
  InitLogging(LogLevel::kDebug);
  LogDebug("a");
  LogInfo("b");
  LogWarning("c");
  LogError("d");
  unsetenv("JOURNAL_STREAM");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "<7>a\n<6>b\n<4>c\n<3>d\n");
  EXPECT_FALSE(IsJournalStream("1:1", STDERR_FILENO));
  EXPECT_FALSE(IsJournalStream(nullptr, STDERR_FILENO));
}

TEST(LogTest, LevelNames) {
  EXPECT_EQ(ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_EQ(ParseLogLevel("warning"), LogLevel::kWarning);
  EXPECT_EQ(ParseLogLevel("loud"), std::nullopt);
}

TEST(LogLimiterTest, CountsWhatItLeavesOut) {
  LogLimiter limiter(Seconds(10));
  EXPECT_EQ(limiter.Allow(Seconds(100)), 0u);
  EXPECT_EQ(limiter.Allow(Seconds(105)), std::nullopt);
  EXPECT_EQ(limiter.Allow(Seconds(109)), std::nullopt);
  EXPECT_EQ(limiter.Allow(Seconds(110)), 2u);
  EXPECT_EQ(limiter.Allow(Seconds(120)), 0u);
}

// systemd's end of the notification socket.
class NotifyTest : public ::testing::Test {
 protected:
  NotifyTest() : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const std::string path = directory_ / "notify";
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, path.data(), path.size());
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~NotifyTest() override {
    unsetenv("NOTIFY_SOCKET");
    close(fd_);
  }
  std::string Received() {
    char buffer[256];
    const ssize_t n = recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
    return n < 0 ? "nothing" : std::string(buffer, static_cast<size_t>(n));
  }

  TemporaryDirectory directory_;
  const int fd_;
};

TEST_F(NotifyTest, TellsSystemd) {
  NotifyReady();
  EXPECT_EQ(Received(), "READY=1");
  NotifyReloading();
  EXPECT_THAT(Received(), MatchesRegex("RELOADING=1\nMONOTONIC_USEC=[0-9]+"));
  NotifyStopping();
  EXPECT_EQ(Received(), "STOPPING=1");
  NotifyWatchdog();
  EXPECT_EQ(Received(), "WATCHDOG=1");
  NotifyStatus("two\nlines");
  EXPECT_EQ(Received(), "STATUS=two lines");
  unsetenv("NOTIFY_SOCKET");
  NotifyReady();  // nobody to tell
  EXPECT_EQ(Received(), "nothing");
}

}  // namespace
}  // namespace sluice::app
