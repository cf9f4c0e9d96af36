// Puts the page together.

drawLogo(document.getElementById("logo"));
document.getElementById("host").textContent = location.host;

const room = new Card("room", "Room", {
  topics: true, empty: "Messages to this topic appear here, in every window that has it open.",
});
const echo = new Card("echo", "Echo", {
  sendOnAll: true, timed: true, empty: "Connect, then send something: it comes straight back.",
});

function show(card) {
  for (const each of [room, echo]) {
    each.root.classList.toggle("shown", each === card);
    document.getElementById(`tab-${each.name}`).setAttribute("aria-pressed", String(each === card));
  }
}
for (const card of [room, echo]) document.getElementById(`tab-${card.name}`).addEventListener("click", () => show(card));
show(room);

// A link such as `/#news` opens the page on that topic, and a reload comes back to it.
room.el.topic.value = topicOfHash() ?? "lobby";
window.addEventListener("hashchange", () => {
  room.el.topic.value = topicOfHash() ?? "lobby";
  room.paint();
  if (room.moved()) room.toggle();
});
room.open(1);
