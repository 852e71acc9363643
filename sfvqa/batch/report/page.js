"use strict";
// Hides the items, and the videos left without any, that do not have every word that is searched for.
const filters = document.getElementById("filters");
const query = document.getElementById("query");
const state = document.getElementById("state");
const cards = Array.from(document.querySelectorAll(".card"), (card) => ({
  card,
  items: Array.from(card.querySelectorAll(".item"), (item) => ({
    item,
    states: item.dataset.state.split(" "),
    text: (card.querySelector("h2").textContent + " " + item.textContent).toLowerCase(),
  })),
}));
const total = cards.reduce((sum, { items }) => sum + items.length, 0);

function show() {
  const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { card, items } of cards) {
    let inCard = 0;
    for (const { item, states, text } of items) {
      const fits = (!state.value || states.includes(state.value)) && words.every((word) => text.includes(word));
      item.hidden = !fits;
      inCard += fits;
    }
    card.hidden = !inCard;
    shown += inCard;
  }
  document.getElementById("count").textContent = `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} items`;
  document.getElementById("nothing").hidden = shown > 0;
}

filters.hidden = false;
filters.addEventListener("submit", (event) => event.preventDefault());
query.addEventListener("input", show);
state.addEventListener("change", show);
show();
