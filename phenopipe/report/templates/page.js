// Draws the charts in the reader's colour scheme, marks the place in the contents, and answers searches on the map. Nothing is ever fetched.
(() => {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const themes = read("themes");

  const drawn = new Set();
  const draw = (place) => {
    drawn.add(place);
    const config = dark.matches ? themes.dark : themes.light;
    const options = { config, actions: false, renderer: "svg", tooltip: { theme: dark.matches ? "dark" : "light" } };
    return vegaEmbed(place, read(place.dataset.spec), options).catch((error) => {
      place.textContent = "This chart could not be drawn: " + error.message;
    });
  };
  // One after another, so that the page answers while it draws; folded charts when opened.
  const inOrder = async (places) => {
    for (const place of places) {
      await draw(place);
      await new Promise((next) => setTimeout(next, 0));
    }
  };
  const charts = [...document.querySelectorAll(".chart")];
  inOrder(charts.filter((place) => !place.closest("details")));
  document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () =>
    inOrder([...fold.querySelectorAll(".chart")].filter((place) => !drawn.has(place)))));
  dark.addEventListener("change", () => inOrder([...drawn]));
  window.addEventListener("beforeprint", () => inOrder(charts.filter((place) => !drawn.has(place))));

  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const sections = [...document.querySelectorAll("section")];
  const mark = () => {
    const above = sections.filter((section) => section.getBoundingClientRect().top < 160);
    const here = (above.pop() || sections[0]).id;
    links.forEach((a, id) => a.classList.toggle("here", id === here));
  };
  window.addEventListener("scroll", mark, { passive: true });
  mark();

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const answer = (title, rows, names) => {
    const table = element("table"), head = element("tr");
    head.append(element("th", title), element("th", "cosine"));
    table.append(head);
    for (const [index, cosine] of rows) {
      const row = element("tr"), value = element("td"), bar = element("span", undefined, "bar");
      bar.style.width = Math.abs(cosine) * 5 + "rem";
      value.append(bar, document.createTextNode(cosine.toFixed(2)));
      row.append(element("td", names[index]), value);
      table.append(row);
    }
    return table;
  };
  document.querySelectorAll(".search").forEach((form) => {
    const data = read(form.dataset.map), input = form.querySelector("input");
    const select = form.querySelector("select"), list = form.querySelector("datalist");
    const answers = form.nextElementSibling;
    const show = () => {
      const map = data[select.value];
      const wanted = input.value.trim().toUpperCase();
      const found = map.names.findIndex((name) => name.toUpperCase() === wanted);
      answers.replaceChildren();
      if (found < 0 || !map.near[found]) {
        const close = map.names.filter((name) => name.toUpperCase().startsWith(wanted)).slice(0, 12);
        answers.append(element("p", wanted ? "No such name on this map. " + (close.length ? "Near it in the alphabet: " + close.join(", ") : "") : "", "quiet"));
        return;
      }
      const [like, unlike] = map.near[found];
      if (like.length) answers.append(answer("most alike", like, map.names));
      if (unlike.length) answers.append(answer("most opposed", unlike, map.names));
    };
    const fill = () => {
      list.replaceChildren(...data[select.value].names.slice(0, 4000).map((name) => {
        const option = element("option");
        option.value = name;
        return option;
      }));
      show();
    };
    select.addEventListener("change", fill);
    input.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    fill();
  });
})();
