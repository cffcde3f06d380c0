#include "app/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "app/client.h"
#include "telemetry/view_json.h"
#include "unit/app/fake_views.h"

namespace sluice::app {
namespace {

using ::testing::HasSubstr;

class ControlServerTest : public ::testing::Test {
 protected:
  void Start(ControlServer& server) {
    server.HandleViews(views_);
    const absl::Status status = server.Start(path_);
    ASSERT_TRUE(status.ok()) << status;
  }

  FakeViews views_;
  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "s.sock";
};

// What a killed process leaves behind.
void LeaveStaleSocket(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::memcpy(a.sun_path, path.data(), path.size());
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  close(fd);
}

TEST_F(ControlServerTest, ServesEveryView) {
  ControlServer server;
  Start(server);
  const auto status = ControlGet(path_, "/v1/status");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(telemetry::FromJson<telemetry::StatusView>(*status)->version, "1.2.3");
  EXPECT_EQ(*ControlGet(path_, "/v1/ready"), R"({"ready":true,"reason":""})");
  EXPECT_THAT(*ControlGet(path_, "/v1/interfaces"), HasSubstr("lan0"));
  EXPECT_THAT(*ControlGet(path_, "/v1/neighbors"), HasSubstr("10.0.0.2"));
  EXPECT_THAT(*ControlGet(path_, "/v1/workers"), HasSubstr("busy_ratio"));
  EXPECT_THAT(*ControlGet(path_, "/v1/drops"), HasSubstr("no_route"));
}

TEST_F(ControlServerTest, ReadsTheRouteFilter) {
  ControlServer server;
  Start(server);
  ASSERT_TRUE(ControlGet(path_, "/v1/routes").ok());
  EXPECT_EQ(views_.last_filter.destination, std::nullopt);
  EXPECT_EQ(views_.last_filter.limit, 1000u);
  ASSERT_TRUE(ControlGet(path_, "/v1/routes?destination=2001:db8::1&limit=5").ok());
  EXPECT_EQ(views_.last_filter.destination, IpAddress(*ParseIpv6("2001:db8::1")));
  EXPECT_EQ(views_.last_filter.limit, 5u);
  for (const char* bad :
       {"destination=x", "limit=0", "limit=100001", "limit=1x", "limit=", "limit=-1", "other=1"}) {
    const auto answer = ControlGet(path_, std::string("/v1/routes?") + bad);
    EXPECT_TRUE(absl::IsInvalidArgument(answer.status())) << bad << ": " << answer.status();
  }
}

TEST_F(ControlServerTest, UnknownPathsAndFailingHandlersSaySo) {
  ControlServer server;
  server.Handle("/v1/broken", [](const ControlServer::Query&) -> absl::StatusOr<std::string> {
    return absl::InternalError("it broke");
  });
  Start(server);
  const auto unknown = ControlGet(path_, "/v2/status");
  EXPECT_TRUE(absl::IsNotFound(unknown.status())) << unknown.status();
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("/v2/status"));
  // A literal path, not a pattern.
  EXPECT_TRUE(absl::IsNotFound(ControlGet(path_, "/v1/statusx").status()));
  const auto broken = ControlGet(path_, "/v1/broken");
  EXPECT_EQ(broken.status().message(), "it broke");
}

TEST_F(ControlServerTest, TheSocketIsForOwnerAndGroup) {
  ControlServer server;
  Start(server);
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 07777, 0660u);
}

TEST_F(ControlServerTest, StopRemovesTheSocketAndMayBeRepeated) {
  ControlServer server;
  Start(server);
  server.Stop();
  server.Stop();
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
  EXPECT_TRUE(absl::IsUnavailable(ControlGet(path_, "/v1/status").status()));
}

TEST_F(ControlServerTest, ReplacesTheSocketOfADeadProcess) {
  LeaveStaleSocket(path_);
  const auto before = ControlGet(path_, "/v1/ready");
  EXPECT_TRUE(absl::IsUnavailable(before.status())) << before.status();
  ControlServer server;
  Start(server);
  EXPECT_TRUE(ControlGet(path_, "/v1/ready").ok());
}

TEST_F(ControlServerTest, ASecondServerIsToldThatOneRuns) {
  ControlServer first;
  Start(first);
  ControlServer second;
  const absl::Status status = second.Start(path_);
  EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("already running"));
  second.Stop();
  EXPECT_TRUE(ControlGet(path_, "/v1/ready").ok()) << "the first one must not suffer";
}

TEST_F(ControlServerTest, StopLeavesASuccessorsSocketAlone) {
  ControlServer server;
  Start(server);
  ASSERT_EQ(unlink(path_.c_str()), 0);
  ControlServer successor;
  Start(successor);
  server.Stop();
  EXPECT_TRUE(ControlGet(path_, "/v1/ready").ok());
}

TEST_F(ControlServerTest, RefusesToReplaceAnOrdinaryFile) {
  std::ofstream(path_) << "precious";
  ControlServer server;
  const absl::Status status = server.Start(path_);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is not a socket"));
  std::string text;
  std::ifstream(path_) >> text;
  EXPECT_EQ(text, "precious");
}

TEST_F(ControlServerTest, MakesOneMissingDirectory) {
  const std::string path = directory_ / "run/s.sock";
  ControlServer server;
  server.HandleViews(views_);
  ASSERT_TRUE(server.Start(path).ok());
  EXPECT_TRUE(ControlGet(path, "/v1/ready").ok());
  ControlServer other;
  EXPECT_THAT(std::string(other.Start(directory_ / "a/b/s.sock").message()),
              HasSubstr("cannot make directory"));
  EXPECT_TRUE(absl::IsInvalidArgument(other.Start(directory_ / std::string(120, 'x'))));
  EXPECT_TRUE(absl::IsInvalidArgument(other.Start("")));
}

TEST_F(ControlServerTest, HandlersGoThroughTheExecutorOneAtATime) {
  int inside = 0, most = 0, calls = 0;  // unlocked on purpose: the server serialises
  ControlServer server([&](const std::function<void()>& task) {
    ++inside;
    most = std::max(most, inside);
    ++calls;
    task();
    --inside;
    return true;
  });
  Start(server);
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      for (int n = 0; n < 5; ++n) {
        const auto answer = ControlGet(path_, "/v1/status");
        EXPECT_TRUE(answer.ok()) << answer.status();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  server.Stop();
  EXPECT_EQ(calls, 40);
  EXPECT_EQ(most, 1);
}

TEST_F(ControlServerTest, AnExecutorThatEndsIsServiceUnavailable) {
  ControlServer server([](const std::function<void()>&) { return false; });
  Start(server);
  EXPECT_THAT(std::string(ControlGet(path_, "/v1/status").status().message()),
              HasSubstr("shutting down"));
}

TEST_F(ControlServerTest, AServerThatDoesNotAnswerTimesOut) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::memcpy(a.sun_path, path_.data(), path_.size());
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  ASSERT_EQ(listen(fd, 4), 0);
  const auto answer = ControlGet(path_, "/v1/status", Millis(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status())) << answer.status();
  close(fd);
}

}  // namespace
}  // namespace sluice::app
