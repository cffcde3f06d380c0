#include "dataplane/mailbox.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

namespace sluice::dataplane {
namespace {

// What an eventfd is to a real worker: a wake-up that comes too early is not lost.
class Alarm : public Waker {
 public:
  void Wake() override {
    const std::lock_guard lock(mutex_);
    rung_ = true;
    ++count_;
    changed_.notify_one();
  }
  void Sleep() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return rung_; });
    rung_ = false;
  }
  int count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
  int count_ = 0;
};

Handoff Frame(uint32_t number) {
  Handoff message;
  message.kind = Handoff::Kind::kFrame;
  message.packet.frame = number;
  return message;
}

TEST(Mailbox, OneRingPerSenderInOrder) {
  Mailbox box(3);
  EXPECT_TRUE(box.IsEmpty());
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_TRUE(box.Send(WorkerId{1}, Frame(i)));
    EXPECT_TRUE(box.Send(WorkerId{2}, Frame(100 + i)));
  }
  Handoff message;
  EXPECT_FALSE(box.Receive(WorkerId{0}, message));
  for (uint32_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(box.Receive(WorkerId{2}, message));
    EXPECT_EQ(message.packet.frame, 100 + i);
    EXPECT_FALSE(box.IsEmpty());
    ASSERT_TRUE(box.Receive(WorkerId{1}, message));
    EXPECT_EQ(message.packet.frame, i);
  }
  EXPECT_TRUE(box.IsEmpty());
}

TEST(Mailbox, AFullRingRefusesAndKeepsTheMessage) {
  Mailbox box(2);
  uint32_t n = 0;
  while (box.Send(WorkerId{0}, Frame(n))) ++n;
  EXPECT_EQ(n, Mailbox::kHandoffs);
  Handoff refused = Frame(77);
  EXPECT_FALSE(box.Send(WorkerId{0}, std::move(refused)));
  EXPECT_EQ(refused.packet.frame, 77u);  // NOLINT: a refused message stays the sender's
  EXPECT_TRUE(box.Send(WorkerId{1}, Frame(1))) << "others have rings of their own";
  Handoff message;
  ASSERT_TRUE(box.Receive(WorkerId{0}, message));
  EXPECT_EQ(message.packet.frame, 0u);
  EXPECT_TRUE(box.Send(WorkerId{0}, std::move(refused)));
}

TEST(Mailbox, CommandsRunOnceAndSayWhenTheyAreDone) {
  struct Count : Command {
    void Run() override { ++runs; }
    int runs = 0;
  };
  Mailbox box(1);
  Count count;
  ASSERT_TRUE(box.Post(&count));
  EXPECT_FALSE(box.IsEmpty());
  Command* taken = nullptr;
  ASSERT_TRUE(box.TakeCommand(taken));
  EXPECT_FALSE(count.done());
  taken->RunAndMark();
  EXPECT_TRUE(count.done());
  EXPECT_EQ(count.runs, 1);
  EXPECT_FALSE(box.TakeCommand(taken));
  size_t posted = 0;
  while (box.Post(&count)) ++posted;
  EXPECT_EQ(posted, Mailbox::kCommands);
}

TEST(Mailbox, WakesOnlyASleeper) {
  Mailbox box(1);
  Alarm alarm;
  box.Ring();  // without a waker: nothing to do
  box.set_waker(&alarm);
  box.Send(WorkerId{0}, Frame(1));
  box.Ring();
  EXPECT_EQ(alarm.count(), 0);
  EXPECT_FALSE(box.GoingToSleep()) << "something waits";
  box.Awake();
  Handoff message;
  box.Receive(WorkerId{0}, message);
  EXPECT_TRUE(box.GoingToSleep());
  box.Ring();
  EXPECT_EQ(alarm.count(), 1);
  box.Awake();
  box.Ring();
  EXPECT_EQ(alarm.count(), 1);
}

// No wake-up is lost: were one, the receiver would sleep on a message and this would not end.
TEST(Mailbox, SleepAndSendRace) {
  constexpr uint32_t kMessages = 20000;
  Mailbox box(2);
  Alarm alarm;
  box.set_waker(&alarm);
  std::thread sender([&] {
    for (uint32_t i = 0; i < kMessages; ++i) {
      while (!box.Send(WorkerId{1}, Frame(i))) std::this_thread::yield();
      box.Ring();
      // Gives the receiver time to fall asleep now and then.
      if (i % 16 == 0) std::this_thread::yield();
    }
  });
  uint32_t next = 0;
  while (next < kMessages) {
    Handoff message;
    while (box.Receive(WorkerId{1}, message)) {
      ASSERT_EQ(message.packet.frame, next);
      ++next;
    }
    if (next == kMessages) break;
    if (box.GoingToSleep()) alarm.Sleep();
    box.Awake();
  }
  sender.join();
  EXPECT_TRUE(box.IsEmpty());
}

}  // namespace
}  // namespace sluice::dataplane
