// All videos that the filter leaves, as pictures: more are added as the end comes into view.

const AT_ONCE = 96;

function createGallery(place, end, { onChoose, onPoint }) {
  let videos = [], done = 0;

  function add() {
    const next = videos.slice(done, done + AT_ONCE);
    done += next.length;
    place.append(...next.map((video) => {
      const button = element("button", { type: "button", class: "thing", "aria-pressed": "false", "data-video": video },
        picture(video), nameInLine(keys[video]), element("small", {}, facts(video)));
      button.addEventListener("click", () => onChoose(video));
      button.addEventListener("focus", () => onPoint(video));
      button.addEventListener("blur", () => onPoint(-1));
      return button;
    }));
    if (!next.length) return;
    watch.unobserve(end); // to be told again where the end is in view still
    watch.observe(end);
  }

  const watch = new IntersectionObserver((entries) => {
    if (done < videos.length && entries.some((entry) => entry.isIntersecting)) add();
  }, { rootMargin: "400px" });

  return {
    show(next) {
      videos = next;
      done = 0;
      place.replaceChildren();
      add(); // the first ones at once, so that the keyboard finds them; their pictures wait
    },
    press(chosen) {
      for (const button of place.children) button.setAttribute("aria-pressed", String(chosen.includes(Number(button.dataset.video))));
    },
  };
}
