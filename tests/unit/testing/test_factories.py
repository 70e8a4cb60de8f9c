from circuit_script.testing import Factory


def test_the_same_seed_makes_the_same_records():
    assert [Factory(7).contact() for _ in range(2)] == [Factory(7).contact() for _ in range(2)]
    assert Factory(7).contact() != Factory(8).contact()


def test_two_hundred_contacts_are_two_hundred_people():
    factory = Factory()
    assert len({factory.contact()["id"] for _ in range(200)}) == 200


def test_what_is_given_comes_in_the_place_of_what_is_made_up():
    contact = Factory().contact(firstName="Ana", email=None)
    assert contact["name"].startswith("Ana ")
    assert contact["email"] is None


def test_what_hangs_on_a_contact_names_it():
    factory = Factory()
    ana = factory.contact()
    hanging = (factory.message(ana), factory.opportunity(ana), factory.appointment(ana))
    assert {each["contactId"] for each in hanging} == {ana["id"]}
    assert hanging[2]["startTime"] < hanging[2]["endTime"]


def test_an_unknown_object_has_an_id():
    assert Factory().record("Invoice", total=3).keys() == {"id", "dateAdded", "total"}
