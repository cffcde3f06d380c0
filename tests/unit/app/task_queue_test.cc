#include "app/task_queue.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <thread>
#include <vector>

namespace sluice::app {
namespace {

bool Readable(const TaskQueue& queue, int timeout_ms) {
  pollfd p{.fd = queue.fd(), .events = POLLIN, .revents = 0};
  return poll(&p, 1, timeout_ms) == 1;
}

TEST(TaskQueue, RunsOnTheThreadThatOwnsIt) {
  TaskQueue queue;
  EXPECT_FALSE(Readable(queue, 0));
  std::thread::id ran_on;
  bool accepted = false;
  std::thread handler([&] { accepted = queue.Run([&] { ran_on = std::this_thread::get_id(); }); });
  ASSERT_TRUE(Readable(queue, -1));
  queue.RunAll();
  handler.join();
  EXPECT_TRUE(accepted);
  EXPECT_EQ(ran_on, std::this_thread::get_id());
  EXPECT_FALSE(Readable(queue, 0)) << "quiet again";
  queue.RunAll();  // nothing to do is fine
}

TEST(TaskQueue, ManyHandlersAtOnce) {
  constexpr int kThreads = 8;
  constexpr int kTasks = 200;
  TaskQueue queue;
  int count = 0;  // without a lock: only one thread touches it
  std::atomic<int> finished{0};
  std::vector<std::thread> handlers;
  for (int i = 0; i < kThreads; ++i) {
    handlers.emplace_back([&] {
      for (int n = 0; n < kTasks; ++n) EXPECT_TRUE(queue.Run([&] { ++count; }));
      ++finished;
      queue.Run([] {});  // so that the loop below sees `finished`
    });
  }
  while (finished < kThreads || count < kThreads * kTasks) {
    Readable(queue, 100);
    queue.RunAll();
  }
  queue.Close();
  for (std::thread& t : handlers) t.join();
  EXPECT_EQ(count, kThreads * kTasks);
}

TEST(TaskQueue, CloseLetsEverybodyGo) {
  TaskQueue queue;
  std::atomic<int> refused{0};
  bool ran = false;
  std::vector<std::thread> handlers;
  for (int i = 0; i < 4; ++i) {
    handlers.emplace_back([&] {
      if (!queue.Run([&] { ran = true; })) ++refused;
    });
  }
  ASSERT_TRUE(Readable(queue, -1));  // at least one waits; the others may come before or after
  queue.Close();
  for (std::thread& t : handlers) t.join();
  EXPECT_EQ(refused, 4);
  EXPECT_FALSE(ran);
  EXPECT_FALSE(queue.Run([&] { ran = true; }));
  queue.RunAll();
  EXPECT_FALSE(ran);
}

TEST(TaskQueue, ATaskMayCloseIt) {
  TaskQueue queue;
  bool accepted = false;
  std::thread handler([&] { accepted = queue.Run([&] { queue.Close(); }); });
  ASSERT_TRUE(Readable(queue, -1));
  queue.RunAll();
  handler.join();
  EXPECT_TRUE(accepted) << "it has run";
}

}  // namespace
}  // namespace sluice::app
