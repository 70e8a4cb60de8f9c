// A part of a page that nobody acts on. At first it takes over what stands in the page; what comes later it draws itself,
// as one component for a whole tree of [tag, attributes, text or children].
const early = {};
for (const each of document.querySelectorAll("#app [data-part]")) early[each.dataset.part] = each;
const drawn = ([tag, attributes, inside]) =>
  Vue.h(tag, attributes, Array.isArray(inside) ? inside.map(drawn) : inside);

export default {
  props: { part: Number, tree: { type: Array, default: null } },
  render() {
    return Vue.h("div", { class: "still", key: this.tree ? "drawn" : "early" }, this.tree?.map(drawn));
  },
  mounted() {
    if (!this.tree) this.$el.append(...(early[this.part]?.childNodes ?? []));
  },
  beforeUnmount() {
    if (!this.tree) early[this.part]?.append(...this.$el.childNodes);
  },
};
